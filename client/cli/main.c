/* espctl: the operator's program. All but the process's own settings is in commands.c. */
#include <jansson.h>
#include <malloc.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

#define MIB (1024 * 1024)

int main(int argc, char **argv) {
  /* gRPC's buffers are otherwise given back to the kernel, and faulted in again, with each message. */
  mallopt(M_MMAP_THRESHOLD, 32 * MIB);
  mallopt(M_TRIM_THRESHOLD, 1024 * MIB);
  mallopt(M_TOP_PAD, 64 * MIB);
  json_set_alloc_funcs(esp_malloc, esp_free);
  return esp_cli_main(argc, argv, esp_env_system(), stdout, stderr);
}
