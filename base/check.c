/* The end of the process on a broken invariant: going on would write wrong bits into a model. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void esp_check_failed(const char *condition, const char *file, int line) {
  fprintf(stderr, "espalier: broken invariant: %s (%s:%d)\n", condition, file, line);
  abort();
}
