/* A stand-in for libnvidia-ml.so.1, with the functions and layouts that
 * runner/gpu uses (nvml.h). STUB_GPUS devices. Compiled with -DNO_V2 it lacks
 * the second memory call, with -DNO_FIELDS the field values. STUB_LOST=N: GPU 1
 * is lost from its Nth memory call on; STUB_HANG=N: that call never returns;
 * STUB_CRASH=N: it crashes. STUB_MIG=N: GPU 0 is in MIG mode and has N instances,
 * of which the first place is empty. STUB_SLOW: microseconds that a memory call takes.
 * STUB_NO_MEMORY=N: the memory call returns N (3: not supported). */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct { int index; int calls; int part; } dev_t_;
static dev_t_ devs[16], parts[8];

static int env(const char *name, int def) {
	const char *v = getenv(name);
	return v ? atoi(v) : def;
}

int nvmlInit_v2(void) { return env("STUB_INIT", 0); }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *b, unsigned n) { snprintf(b, n, "580.00.stub"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = env("STUB_GPUS", 2); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { devs[i].index = i; *d = &devs[i]; return 0; }
int nvmlDeviceGetUUID(dev_t_ *d, char *b, unsigned n) {
	if (d->part) snprintf(b, n, "MIG-%08d-stub", d->part);
	else snprintf(b, n, "GPU-%08d-stub", d->index);
	return 0;
}
int nvmlDeviceGetName(dev_t_ *d, char *b, unsigned n) { snprintf(b, n, d->part ? "NVIDIA STUB MIG 1g.10gb" : "NVIDIA STUB"); return 0; }
int nvmlDeviceGetMigMode(dev_t_ *d, unsigned *now, unsigned *pending) { *now = *pending = d->index == 0 && env("STUB_MIG", 0) > 0; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(dev_t_ *d, unsigned *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(dev_t_ *d, unsigned i, void **p) {
	if (i < 1 || (int)i > env("STUB_MIG", 0)) return 6;
	parts[i].part = i;
	*p = &parts[i];
	return 0;
}
int nvmlSystemGetProcessName(unsigned pid, char *b, unsigned n) { snprintf(b, n, "/usr/bin/stub-%u", pid); return 0; }
int nvmlDeviceGetTotalEccErrors(dev_t_ *d, int type, int counter, unsigned long long *n) { *n = type == 1 && counter == 0 ? d->index : 99; return 0; }
int nvmlDeviceGetPersistenceMode(dev_t_ *d, int *m) { *m = d->index != 1; return 0; }
int nvmlDeviceGetComputeMode(dev_t_ *d, int *m) { *m = 0; return 0; }
int nvmlDeviceGetCudaComputeCapability(dev_t_ *d, int *major, int *minor) { *major = 9; *minor = 0; return 0; }

typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci;
int nvmlDeviceGetPciInfo_v3(dev_t_ *d, pci *p) {
	memset(p, 0, sizeof *p);
	snprintf(p->bus_id, sizeof p->bus_id, "00000000:%02X:00.0", d->index);
	return 0;
}

static int fault(dev_t_ *d) {
	int n = d->calls++;
	if (env("STUB_SLOW", 0)) usleep(env("STUB_SLOW", 0));
	if (d->index != 1) return 0;
	if (env("STUB_LOST", 0) && n >= env("STUB_LOST", 0)) return 15;
	if (env("STUB_HANG", 0) && n >= env("STUB_HANG", 0)) for (;;) sleep(3600);
	if (env("STUB_CRASH", 0) && n >= env("STUB_CRASH", 0)) abort();
	return 0;
}

#ifndef NO_V2
typedef struct { unsigned version, pad; unsigned long long total, reserved, free, used; } mem2;
int nvmlDeviceGetMemoryInfo_v2(dev_t_ *d, mem2 *m) {
	if (m->version != 0x02000028) return 25;
	int rc = env("STUB_NO_MEMORY", 0) ? env("STUB_NO_MEMORY", 0) : fault(d);
	if (rc) return rc;
	m->total = 80ULL << 30; m->reserved = 480ULL << 20; m->used = (unsigned long long)(d->index + 1) << 30;
	if (d->part) { m->total = 10ULL << 30; m->reserved = 16ULL << 20; m->used = (unsigned long long)d->part << 28; }
	m->free = m->total - m->reserved - m->used;
	return 0;
}
#endif
typedef struct { unsigned long long total, free, used; } mem1;
int nvmlDeviceGetMemoryInfo(dev_t_ *d, mem1 *m) {
	int rc = env("STUB_NO_MEMORY", 0) ? env("STUB_NO_MEMORY", 0) : fault(d);
	if (rc) return rc;
	m->total = 80ULL << 30; m->used = ((unsigned long long)(d->index + 1) << 30) + (480ULL << 20); m->free = m->total - m->used;
	return 0;
}
int nvmlDeviceGetUtilizationRates(dev_t_ *d, unsigned *u) { if (d->index == 0 && env("STUB_MIG", 0)) return 3; u[0] = 50; u[1] = 25; return 0; }
int nvmlDeviceGetTemperature(dev_t_ *d, int sensor, unsigned *t) { *t = 40; return 0; }
int nvmlDeviceGetPowerUsage(dev_t_ *d, unsigned *mw) { *mw = 300500; return 0; }
int nvmlDeviceGetClockInfo(dev_t_ *d, int type, unsigned *mhz) { *mhz = type == 1 ? 1980 : 2619; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(dev_t_ *d, unsigned long long *r) { *r = 4; return 0; }
int nvmlDeviceGetArchitecture(dev_t_ *d, unsigned *a) { *a = env("STUB_ARCH", 9); return 0; }
#ifndef NO_FIELDS
typedef struct { unsigned id, scope; long long stamp, latency; unsigned type, rc; unsigned long long value; } field;
int nvmlDeviceGetFieldValues(dev_t_ *d, int n, field *f) {
	for (int i = 0; i < n; i++) {
		f[i].rc = 0; f[i].type = 1; f[i].value = 0;
		if (f[i].id == 186) *(unsigned *)&f[i].value = 310250;
		else if (f[i].id == 82) *(unsigned *)&f[i].value = 55;
		else f[i].rc = 3;
	}
	return 0;
}
#endif
int nvmlDeviceGetTotalEnergyConsumption(dev_t_ *d, unsigned long long *mj) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	usleep(3000);
	*mj = 1000ULL * t.tv_sec;
	return 0;
}
typedef struct { unsigned pid, pad; unsigned long long used; unsigned gi, ci; } procinfo;
int nvmlDeviceGetComputeRunningProcesses_v3(dev_t_ *d, unsigned *n, procinfo *p) {
	*n = 2;
	p[0].pid = env("STUB_PID", 1); p[0].used = 123ULL << 20;
	p[1].pid = 1; p[1].used = 7ULL << 30;
	if (d->part) { *n = 1; p[0].pid = 100 + d->part; p[0].used = (unsigned long long)d->part << 27; }
	return 0;
}
