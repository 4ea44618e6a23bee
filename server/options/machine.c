/* What defaults depend on: cores and memory. A container's limit counts where it is less than the machine's. What
 * can't be read does not limit. */
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "options/table.h"

uint64_t esp_machine_cores(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return (uint64_t)CPU_COUNT(&set);
  }
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores > 0 ? (uint64_t)cores : 1;
}

/* A cgroup without a limit has the word "max" in the file (version 2) or a huge number (version 1). */
static uint64_t limit_read(const char *path) {
  unsigned long long limit = 0;
  FILE *file = fopen(path, "re");
  if (!file) {
    return UINT64_MAX;
  }
  bool found = fscanf(file, "%llu", &limit) == 1;
  fclose(file);
  return found ? limit : UINT64_MAX;
}

uint64_t esp_machine_memory(void) {
  /* Inside a container its own cgroup is mounted as the root. */
  static const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
  uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
  for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
    uint64_t limit = limit_read(limits[i]);
    memory = limit < memory ? limit : memory;
  }
  return memory;
}
