/* Reads a whole file, also a pipe. It is read, not mapped: a mapped file that somebody cuts off meanwhile would kill
 * the program. */
#include "client/cli/input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"

#define GROW_BYTES 65536 /* the least that is read at once */

/* Where the size is known, one allocation holds it all, and one byte more to see the end. */
static size_t size_hint(FILE *stream) {
  struct stat info;
  if (fstat(fileno(stream), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < GROW_BYTES)
    return GROW_BYTES;
  return (size_t)info.st_size + 1;
}

static enum esp_code read_stream(struct esp_cli_input *input, FILE *stream, const char *file, struct esp_status *st) {
  size_t want = size_hint(stream);
  for (;;) {
    if (!esp_grow((void **)&input->data, &input->capacity, want, 1))
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to read %s", file);
    size_t room = input->capacity - input->len;
    size_t got = fread(input->data + input->len, 1, room, stream);
    input->len += got;
    if (ferror(stream))
      return esp_fail(st, ESP_INTERNAL, "cannot read %s: %s", file, strerror(errno));
    if (got < room)
      return ESP_OK;
    want = input->capacity + GROW_BYTES;
  }
}

enum esp_code esp_cli_input_read(struct esp_cli_input *input, const char *file, struct esp_status *st) {
  *input = (struct esp_cli_input){0};
  if (strcmp(file, "-") == 0) {
    enum esp_code code = read_stream(input, stdin, "standard input", st);
    if (code != ESP_OK)
      esp_cli_input_free(input);
    return code;
  }
  FILE *stream = fopen(file, "rb");
  if (stream == NULL)
    return esp_fail(st, errno == ENOENT ? ESP_NOT_FOUND : ESP_INTERNAL, "cannot open %s: %s", file, strerror(errno));
  enum esp_code code = read_stream(input, stream, file, st);
  fclose(stream); /* it was only read */
  if (code != ESP_OK)
    esp_cli_input_free(input);
  return code;
}

void esp_cli_input_free(struct esp_cli_input *input) {
  esp_free(input->data);
  *input = (struct esp_cli_input){0};
}
