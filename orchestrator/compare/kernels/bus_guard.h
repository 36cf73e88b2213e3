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
    struct sigaction other = earlier;
    earlier = (struct sigaction){.sa_handler = SIG_DFL}; /* the other handler may raise the signal again for us */
    if (other.sa_flags & SA_SIGINFO)
        other.sa_sigaction(number, info, context);
    else if (other.sa_handler != SIG_DFL && other.sa_handler != SIG_IGN)
        other.sa_handler(number);
    else
        sigaction(SIGBUS, &earlier, NULL); /* the read is repeated, and ends us */
    earlier = other;
}

/* Handle the signal, also where a library, such as Ray's, took it over since. */
static void watch(void) {
    struct sigaction now, action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGBUS, NULL, &now);
    if (now.sa_sigaction == on_bus_error) return;
    sigaction(SIGBUS, &action, &now);
    if (now.sa_sigaction != on_bus_error) earlier = now; /* no other thread was faster */
}

/* Guard a mapping; return the number of the guard, -1 if all are taken. */
int guard_mapping(uintptr_t begin, size_t size) {
    static atomic_uint turn;
    watch();
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
