/* The tests' twin of esp_env: a clock that stands still until the test advances it, randomness from a seed, a disk in
 * memory that fails on command and forgets on a crash what was not synced. Any thread. */
#ifndef ESP_ENV_VIRTUAL_H
#define ESP_ENV_VIRTUAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"

struct esp_env_virtual;

struct esp_env_virtual *esp_env_virtual_new(uint64_t seed); /* NULL without memory */
void esp_env_virtual_free(struct esp_env_virtual *twin);    /* every file is closed before */
/* To hand to the code under test; lives as long as the twin. */
const struct esp_env *esp_env_virtual_env(struct esp_env_virtual *twin);

void esp_env_virtual_advance(struct esp_env_virtual *twin, uint64_t ms); /* both clocks */

/* The disk operation after `countdown` successes fails, once; -1: never. Operations are create, write, sync, remove,
 * and of a rename two: the rename and the directory's sync. A write that fails has written the first half. */
void esp_env_virtual_fail_at(struct esp_env_virtual *twin, int64_t countdown);
bool esp_env_virtual_has_failed(struct esp_env_virtual *twin); /* since fail_at was called */
/* Every file is cut back to what was synced. */
void esp_env_virtual_crash(struct esp_env_virtual *twin);

/* A file's bytes, borrowed until it changes; NULL where there is none. */
const void *esp_env_virtual_read(struct esp_env_virtual *twin, const char *path, size_t *ret_len);
size_t esp_env_virtual_files_len(struct esp_env_virtual *twin);

#endif
