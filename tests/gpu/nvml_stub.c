/* A stand-in for NVIDIA's driver library, for machines without a GPU: what nvidia-ml-py calls, and what it answers.
 *
 * The "devices" are described by the text file that NVML_STUB names, read anew at each call, a word and its values a line:
 *
 *     init N              nvmlInit answers N (9: driver not loaded); "init hang" does not answer before that line is gone
 *     device UUID         the lines below speak of this one
 *     total MIB           memory
 *     hidden MIB          memory in use that no process owns up to
 *     process PID MIB     a process with a context; MIB "-": not told
 *     living PID MIB MS   the same until that process ends; from then on it had its context for MS milliseconds
 *     graphics PID MIB    a process that draws
 *     watts W             energy since the machine started, in proportion; without this line: not supported
 *     accounting on|off|denied
 *     persistence on|off
 *     unlisted            processes are not listed: no permission
 *     lost                nothing is answered but "GPU is lost"
 *     refused N           it is counted, but whoever asks for it gets N (4: no permission, 15: lost)
 *     nameless            its UUID is not told
 *     part UUID           a MIG instance of the device above; the lines below speak of the instance
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK, INVALID = 2, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, SMALL, NO_DRIVER = 9, LOST = 15 };
enum { DEVICES = 8, PROCESSES = 64 };
typedef unsigned long long u64;
static const u64 MIB = 1 << 20, UNTOLD = ~0ull;

struct process { unsigned pid; u64 bytes, ms; int graphics, living; };
struct device {
    char uuid[96];
    u64 total, hidden;
    double watts;
    int accounting, persistence, unlisted, lost, refused, nameless, count;
    struct device *whole; /* of an instance */
    struct process processes[PROCESSES];
};
static struct device devices[DEVICES];
static int number, init;

static void add(struct device *device, const char *word, const char *rest)
{
    struct process process = {0};
    char size[32] = "-";
    int taken = sscanf(rest, "%u %31s %llu", &process.pid, size, &process.ms);
    if (taken < 2 || device->count == PROCESSES)
        return;
    process.bytes = *size == '-' ? UNTOLD : strtoull(size, NULL, 10) * MIB;
    process.graphics = *word == 'g';
    process.living = *word == 'l';
    device->processes[device->count++] = process;
}

static int refresh(void)
{
    char line[256], word[32], rest[200];
    const char *path = getenv("NVML_STUB");
    FILE *file = path ? fopen(path, "r") : NULL;
    struct device *device = devices;
    number = init = 0;
    if (!file)
        return init = NO_DRIVER;
    while (fgets(line, sizeof line, file)) {
        *rest = 0;
        if (sscanf(line, "%31s %199[^\n]", word, rest) < 1)
            continue;
        if (!strcmp(word, "init"))
            init = strcmp(rest, "hang") ? atoi(rest) : -1;
        else if ((!strcmp(word, "device") || !strcmp(word, "part")) && number < DEVICES) {
            struct device *above = device->whole ? device->whole : device;
            device = &devices[number++];
            memset(device, 0, sizeof *device);
            device->whole = *word == 'p' ? above : NULL;
            snprintf(device->uuid, sizeof device->uuid, "%.90s", rest);
        } else if (!strcmp(word, "total"))
            device->total = strtoull(rest, NULL, 10) * MIB;
        else if (!strcmp(word, "hidden"))
            device->hidden = strtoull(rest, NULL, 10) * MIB;
        else if (!strcmp(word, "watts"))
            device->watts = atof(rest);
        else if (!strcmp(word, "accounting"))
            device->accounting = !strcmp(rest, "on") ? 1 : !strcmp(rest, "denied") ? 2 : 0;
        else if (!strcmp(word, "persistence"))
            device->persistence = !strcmp(rest, "on");
        else if (!strcmp(word, "unlisted"))
            device->unlisted = 1;
        else if (!strcmp(word, "lost"))
            device->lost = 1;
        else if (!strcmp(word, "refused"))
            device->refused = atoi(rest);
        else if (!strcmp(word, "nameless"))
            device->nameless = 1;
        else
            add(device, word, rest);
    }
    fclose(file);
    return init;
}

static int is_there(const struct process *process)
{
    return !process->living || kill((pid_t)process->pid, 0) == 0 || errno == EPERM;
}

static int asked(const struct device *device)
{
    refresh();
    return device->lost ? LOST : OK;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    refresh();
    while (init < 0) {
        usleep(20000);
        refresh();
    }
    return init;
}

int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == NO_DRIVER ? "Driver Not Loaded" : "some error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "580.00-stub"); return OK; }
/* The place among the devices, or among the parts of one. */
static struct device *at(struct device *whole, unsigned index)
{
    refresh();
    for (int place = 0; place < number; place++)
        if (devices[place].whole == whole && !index--)
            return &devices[place];
    return NULL;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    for (*count = 0; at(NULL, *count); )
        ++*count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device)
{
    *device = at(NULL, index);
    return *device ? (*device)->refused : INVALID;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending)
{
    *current = *pending = 1;
    return at(device, 0) ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *count)
{
    (void)device;
    *count = 7;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **part)
{
    *part = at(device, index - 1); /* the first place is free, as after the first of several was removed */
    return index && *part ? OK : NOT_FOUND;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device)
{
    refresh();
    for (int index = 0; index < number; index++)
        if (!strcmp(devices[index].uuid, uuid)) {
            *device = &devices[index];
            return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(struct device *device, char *text, unsigned size)
{
    if (device->nameless)
        return NOT_SUPPORTED;
    snprintf(text, size, "%s", device->uuid);
    return OK;
}

int nvmlDeviceGetName(struct device *device, char *text, unsigned size)
{
    (void)device;
    snprintf(text, size, "Stub GPU");
    return OK;
}

int nvmlDeviceGetMemoryInfo(struct device *device, u64 *memory) /* total, free, used */
{
    int error = asked(device);
    u64 used = device->hidden;
    for (int index = 0; index < device->count; index++)
        if (is_there(&device->processes[index]) && device->processes[index].bytes != UNTOLD)
            used += device->processes[index].bytes;
    memory[0] = device->total;
    memory[1] = used > device->total ? 0 : device->total - used;
    memory[2] = used;
    return error;
}

struct told { unsigned pid; u64 bytes; unsigned gpu, compute; };

static int list(struct device *device, unsigned *count, struct told *told, int graphics)
{
    unsigned found = 0, room = *count;
    int error = asked(device);
    if (error || device->unlisted)
        return error ? error : NO_PERMISSION;
    for (int index = 0; index < device->count; index++) {
        struct process *process = &device->processes[index];
        if (process->graphics != graphics || !is_there(process))
            continue;
        if (told && found < room)
            told[found] = (struct told){process->pid, process->bytes, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *count, struct told *told)
{
    return list(device, count, told, 0);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct device *device, unsigned *count, struct told *told)
{
    return list(device, count, told, 1);
}

int nvmlDeviceGetTotalEnergyConsumption(struct device *device, u64 *millijoules)
{
    struct timespec now;
    int error = asked(device);
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = (u64)(device->watts * (now.tv_sec * 1e3 + now.tv_nsec / 1e6));
    return error ? error : device->watts > 0 ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetAccountingMode(struct device *device, unsigned *mode)
{
    int error = asked(device);
    *mode = device->accounting == 1;
    return error ? error : device->accounting == 2 ? NO_PERMISSION : OK;
}

int nvmlDeviceGetPersistenceMode(struct device *device, unsigned *mode)
{
    int error = asked(device);
    *mode = device->persistence;
    return error;
}

struct account { unsigned gpu, memory; u64 peak, ms, started; unsigned running, reserved[5]; };

int nvmlDeviceGetAccountingStats(struct device *device, unsigned pid, struct account *account)
{
    int error = asked(device);
    if (error || device->accounting == 2)
        return error ? error : NO_PERMISSION;
    for (int index = 0; index < device->count; index++) {
        struct process *process = &device->processes[index];
        if (process->pid != pid || !process->living)
            continue;
        account->running = is_there(process);
        account->ms = account->running ? 0 : process->ms;
        account->peak = process->bytes;
        return OK;
    }
    return NOT_FOUND;
}
