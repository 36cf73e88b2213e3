#!/usr/bin/env bash
# Start or stop a Ray of two nodes on this machine, on loopback, with a token. Other people's Ray is left alone.
# `start` prints the variables that a client needs: eval "$(local-two-nodes.sh start)".
set -euo pipefail
folder="${ACLCMP_TRIAL:-/tmp/aclcmp-trial-$(id -u)}"

start() {
    umask 077
    mkdir -p "$folder"
    own_folder
    ! running head || fail "it runs already; end it by $0 stop"
    for port in 16379 18265; do
        ! answers "$port" || fail "something listens on port $port of this machine already, perhaps another user's trial"
    done
    [ -s "$folder/token" ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/token"
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
    export RAY_health_check_initial_delay_ms=2000 RAY_health_check_period_ms=2000
    export RAY_health_check_timeout_ms=3000 RAY_health_check_failure_threshold=3
    unset RAY_ADDRESS RAY_AUTH_TOKEN
    local each=(--block --num-cpus=4 --object-store-memory=100000000 --min-worker-port=0 --max-worker-port=0
        --node-ip-address=127.0.0.1 --disable-usage-stats)
    begin head --head --port=16379 --include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port=18265 \
        --dashboard-agent-listen-port=18266 --ray-client-server-port=18267 --temp-dir="$folder/r" "${each[@]}"
    wait_for head 18265
    # A folder of its own: two nodes that share one replace each other's copy of what a job uploads, while it is in use.
    begin worker --address=127.0.0.1:16379 --dashboard-agent-listen-port=18276 --temp-dir="$folder/w" "${each[@]}"
    wait_for worker 18276
    # A token in RAY_AUTH_TOKEN, of another cluster, would count before that file.
    printf 'unset RAY_AUTH_TOKEN; export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=%q\n' "$folder/token"
}

begin() {
    local name=$1
    shift
    setsid ray start "$@" > "$folder/$name.log" 2>&1 < /dev/null &
    echo $! > "$folder/$name.pid"
}

wait_for() {
    for _ in $(seq 240); do
        if answers "$2"; then return; fi
        running "$1" || break
        sleep 0.5
    done
    fail "Ray did not start; see $folder/$1.log"
}

answers() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# Its name can be guessed: what another user made there must not become our token, nor name what we end.
own_folder() { [ -O "$folder" ] && [ ! -L "$folder" ] || fail "$folder belongs to another user; set ACLCMP_TRIAL"; }

fail() {
    echo "$1" >&2
    exit 1
}

running() { [ -s "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2> /dev/null; }

stop() {
    [ ! -e "$folder" ] || own_folder
    for name in worker head; do
        if running "$name"; then
            kill "$(cat "$folder/$name.pid")"
            for _ in $(seq 60); do running "$name" && sleep 0.5; done
        fi
    done
    if [ -d "$folder" ]; then # what `start` made there, and nothing else
        rm -rf "$folder/r" "$folder/w"
        rm -f "$folder"/token "$folder"/{head,worker}.{pid,log}
        rmdir "$folder"
    fi
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *)
        echo "usage: $0 start|stop" >&2
        exit 2
        ;;
esac
