/* Reads of mapped files that end without a signal. A page that its file no longer has (it was cut, or its disk fails)
   raises SIGBUS. The handler puts zeros in its place, and notes which of the guarded mappings they are in: what was read
   from it must not be used. */

#define GUARDS 4096

typedef struct {
    _Atomic uintptr_t begin, end; /* end is 0 where the place is free, 1 while it is being taken */
    atomic_bool failed;
} Guard;

static Guard guards[GUARDS];
static struct sigaction earlier;
static atomic_bool is_watching;

static void on_bus_error(int number, siginfo_t *info, void *context) {
    uintptr_t at = (uintptr_t)info->si_addr, page = at & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    for (int i = 0; i < GUARDS; i++) {
        uintptr_t end = guards[i].end;
        if (at < guards[i].begin || at >= end) continue;
        atomic_store(&guards[i].failed, true);
        if (mmap((void *)page, end - page, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
            return;
        break;
    }
    if (earlier.sa_flags & SA_SIGINFO)
        earlier.sa_sigaction(number, info, context);
    else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN)
        earlier.sa_handler(number);
    else
        sigaction(SIGBUS, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* the read is repeated, and ends us */
}

/* Guard a mapping; return the number of the guard, -1 if all are taken. */
int guard_mapping(uintptr_t begin, size_t size) {
    static atomic_uint turn;
    if (!atomic_exchange(&is_watching, true)) {
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};
        sigaction(SIGBUS, &action, &earlier);
    }
    for (int tried = 0; tried < GUARDS; tried++) {
        unsigned i = atomic_fetch_add(&turn, 1) % GUARDS;
        uintptr_t is_free = 0;
        if (!atomic_compare_exchange_strong(&guards[i].end, &is_free, 1)) continue;
        atomic_store(&guards[i].failed, false);
        atomic_store(&guards[i].begin, begin);
        atomic_store(&guards[i].end, begin + size);
        return (int)i;
    }
    return -1;
}

/* Tell whether zeros were read from a guarded mapping. */
bool has_failed(int guard) { return guards[guard].failed; }

void free_guard(int guard) { atomic_store(&guards[guard].end, 0); }
