/* Clocks of one's own for a process that is started with this library in LD_PRELOAD: the wall clock can be stepped
 * while it runs, and all clocks can run faster, with every timed wait shortened to match. The control page is the
 * file named by GPUVIGIL_SIM_WARP, laid out as bench/harness/warp.py writes it. CPU clocks are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CLOCKS 8
#define SECOND 1000000000LL

struct control {
    double speed;
    int64_t wall_step;      /* nanoseconds added to the wall clock */
    int64_t base[CLOCKS];   /* where each clock stood when time began to run faster */
};

static volatile struct control *control;

/* The next library's function of this name, found once. */
#define NEXT(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(name) *next;                                                                                 \
        if (!next)                                                                                                     \
            next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);                                                        \
        next;                                                                                                          \
    })
#define SYSCALL(...) NEXT(syscall)(__VA_ARGS__)

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("GPUVIGIL_SIM_WARP");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        control = page;
}

static int warped(clockid_t clock)
{
    return control && clock >= 0 && clock < CLOCKS && control->base[clock] != 0;
}

static int64_t nanoseconds(const struct timespec *t) { return t->tv_sec * SECOND + t->tv_nsec; }

static struct timespec spec(int64_t t)
{
    return (struct timespec){.tv_sec = t / SECOND, .tv_nsec = t % SECOND};
}

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

/* A real moment as the process sees it, and back. */
static int64_t seen(clockid_t clock, int64_t real)
{
    int64_t base = control->base[clock];
    return base + (int64_t)((double)(real - base) * control->speed) + (is_wall(clock) ? control->wall_step : 0);
}

static int64_t unseen(clockid_t clock, int64_t t)
{
    int64_t base = control->base[clock];
    return base + (int64_t)((double)(t - (is_wall(clock) ? control->wall_step : 0) - base) / control->speed);
}

/* A wait as it really has to last; never shortened to none, lest a sleeper spin. */
static int64_t shortened(int64_t wait)
{
    int64_t real = control && wait > 0 ? (int64_t)((double)wait / control->speed) : wait;
    return wait > 0 && real == 0 ? 1 : real;
}

static int shortened_ms(int wait)
{
    if (wait <= 0 || !control)
        return wait;
    int64_t real = shortened((int64_t)wait * 1000000);
    return (int)((real + 999999) / 1000000);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (SYSCALL(SYS_clock_gettime, clock, now) != 0)
        return -1;
    if (warped(clock))
        *now = spec(seen(clock, nanoseconds(now)));
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wait, struct timespec *rest)
{
    struct timespec real = *wait;
    if (warped(clock))
        real = spec(flags & TIMER_ABSTIME ? unseen(clock, nanoseconds(wait)) : shortened(nanoseconds(wait)));
    return SYSCALL(SYS_clock_nanosleep, clock, flags, &real, rest) == 0 ? 0 : errno;
}

int nanosleep(const struct timespec *wait, struct timespec *rest)
{
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, wait, rest);
    if (error)
        errno = error;
    return error ? -1 : 0;
}

int poll(struct pollfd *set, nfds_t count, int wait)
{
    struct timespec real = spec(shortened((int64_t)wait * 1000000));
    return (int)SYSCALL(SYS_ppoll, set, count, wait < 0 ? NULL : &real, NULL, (size_t)_NSIG / 8);
}

int select(int count, fd_set *restrict r, fd_set *restrict w, fd_set *restrict x, struct timeval *restrict wait)
{
    struct timespec real = wait ? spec(shortened(wait->tv_sec * SECOND + wait->tv_usec * 1000)) : spec(0);
    return (int)SYSCALL(SYS_pselect6, count, r, w, x, wait ? &real : NULL, NULL);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int wait)
{
    return (int)SYSCALL(SYS_epoll_pwait, epoll, events, most, shortened_ms(wait), NULL, (size_t)_NSIG / 8);
}

/* The simulator's waits. */
long syscall(long number, ...)
{
    va_list given;
    va_start(given, number);
    long a = va_arg(given, long), b = va_arg(given, long), c = va_arg(given, long);
    long d = va_arg(given, long), e = va_arg(given, long), f = va_arg(given, long);
    va_end(given);
    if (number == SYS_futex && (b & FUTEX_CMD_MASK) == FUTEX_WAIT && d != 0) {
        struct timespec real = spec(shortened(nanoseconds((const struct timespec *)d)));
        return SYSCALL(number, a, b, c, &real, e, f);
    }
    return SYSCALL(number, a, b, c, d, e, f);
}

/* Python's locks. */
int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until)
{
    struct timespec at = warped(clock) ? spec(unseen(clock, nanoseconds(until))) : *until;
    return NEXT(sem_clockwait)(semaphore, clock, &at);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    return sem_clockwait(semaphore, CLOCK_REALTIME, until);
}

/* Python's lock of the interpreter, the one condition it waits for by the clock: how long a thread may compute before
 * it lets others do so. Computing is no faster than ever, so this wait keeps its length; only its end, told by a clock
 * of ours, has to be one that comes. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    clockid_t clock = until->tv_sec > 1000000000 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    struct timespec at = *until, now;
    if (warped(clock) && SYSCALL(SYS_clock_gettime, clock, &now) == 0) {
        int64_t real = nanoseconds(&now);
        at = spec(real + nanoseconds(until) - seen(clock, real));
    }
    return NEXT(pthread_cond_timedwait)(condition, mutex, &at);
}
