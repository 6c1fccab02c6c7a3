/* A CUDA driver with one GPU whose memory is the host's: as much of the driver as cuda-core needs
   for memory, copies, streams, events and captured graphs. What is not here succeeds and does
   nothing. FAKE_CUDA_BYTES is the size of the memory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NO_MEMORY = 2, NO_DEVICE = 101 };
enum { MAJOR = 75, MINOR = 76 };

static size_t used;
static int object, capturing;
static void *current;
static intptr_t handles = 0x1000;

static size_t total(void) { return strtoull(getenv("FAKE_CUDA_BYTES"), 0, 10); }
static int handle(void **made) { *made = (void *)(handles += 16); return OK; }
static int succeed(void) { return OK; }

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { *version = 13020; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? NO_DEVICE : OK; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Fake"); return OK; }
int cuDeviceGetUuid_v2(char *uuid, int device) { memset(uuid, 7, 16); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = total(); return OK; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == MAJOR ? 9 : which == MINOR ? 0 : 1;
  return OK;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &object; return OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxPushCurrent_v2(void *context) { current = context; return OK; }
int cuCtxPopCurrent_v2(void **context) { *context = current; return OK; }
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuCtxGetCurrent(void **context) { *context = current; return OK; }
int cuCtxGetDevice(int *device) { *device = 0; return OK; }
int cuMemGetInfo_v2(size_t *free, size_t *all) { *all = total(); *free = *all - used; return OK; }

static int take(uint64_t *address, size_t bytes) {
  if (used + bytes > total()) return NO_MEMORY;
  size_t *block = aligned_alloc(256, (bytes + 511) / 256 * 256 + 256);
  block[0] = bytes;
  used += bytes;
  *address = (uint64_t)block + 256;
  return OK;
}
static int give(uint64_t address) {
  size_t *block = (size_t *)(address - 256);
  used -= block[0];
  free(block);
  return OK;
}
int cuDeviceGetDefaultMemPool(void **pool, int device) { *pool = &object; return OK; }
int cuDeviceGetMemPool(void **pool, int device) { *pool = &object; return OK; }
int cuMemPoolGetAttribute(void *pool, int which, uint64_t *value) { *value = 0; return OK; }
int cuMemAllocFromPoolAsync(uint64_t *address, size_t bytes, void *pool, void *stream) {
  return take(address, bytes);
}
int cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) { return take(address, bytes); }
int cuMemFreeAsync(uint64_t address, void *stream) { return give(address); }
int cuMemAllocHost_v2(uint64_t *address, size_t bytes) { return take(address, bytes); }
int cuMemFreeHost(uint64_t address) { return give(address); }
int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  memcpy((void *)to, (void *)from, bytes);
  return OK;
}

int cuStreamCreateWithPriority(void **stream, unsigned flags, int p) { return handle(stream); }
int cuStreamGetCtx(void *stream, void **context) { *context = &object; return OK; }
int cuCtxGetStreamPriorityRange(int *least, int *most) { *least = 0; *most = -5; return OK; }
int cuEventCreate(void **event, unsigned flags) { return handle(event); }
int cuStreamBeginCapture_v2(void *stream, int mode) { capturing = 1; return OK; }
int cuStreamEndCapture(void *stream, void **graph) { capturing = 0; return handle(graph); }
int cuStreamIsCapturing(void *stream, int *state) { *state = capturing; return OK; }
int cuStreamGetCaptureInfo_v2(
    void *stream, int *state, uint64_t *id, void **graph, void **nodes, size_t *count) {
  *state = capturing;
  if (id) *id = 1;
  if (graph) *graph = &object;
  if (count) *count = 0;
  return OK;
}
int cuStreamGetCaptureInfo_v3(
    void *stream, int *state, uint64_t *id, void **graph, void **nodes, void **edges,
    size_t *count) {
  return cuStreamGetCaptureInfo_v2(stream, state, id, graph, nodes, count);
}
int cuGraphInstantiateWithParams(void **executable, void *graph, char *parameters) {
  *(int *)(parameters + 24) = 0; /* result_out: CUDA_GRAPH_INSTANTIATE_SUCCESS */
  return handle(executable);
}

int cuGetErrorName(int code, const char **text) {
  *text = code == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
  return OK;
}
int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

int cuGetProcAddress_v2(
    const char *name, void **function, int version, uint64_t flags, int *status) {
  static const char *forms[] = {"%s_v3", "%s_v2", "%s"};
  void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  char symbol[128];
  *function = succeed;
  if (status) *status = 0;
  for (int i = 0; i < 3; i++) {
    snprintf(symbol, sizeof symbol, forms[i], name);
    void *found = dlsym(self, symbol);
    if (found) {
      *function = found;
      break;
    }
  }
  return OK;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
