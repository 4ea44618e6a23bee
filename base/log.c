/* Log lines to stderr. A line is put together on the stack and written by one write(2), so that lines of several
 * threads do not mix. Control characters become spaces: a name that a peer chose cannot forge a line. A line that
 * cannot be written is lost, for there is nobody left to tell. */
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 4096

static enum esp_log_level level_least = ESP_LOG_INFO;

void esp_log_level_set(enum esp_log_level level_min) {
  level_least = level_min;
}

/* "2026-01-31T12:00:00.000Z info  "; returns its length. */
static size_t print_prefix(char *line, size_t size, enum esp_log_level level) {
  static const char *const names[] = {"debug", "info ", "warn ", "error"};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  struct tm utc;
  gmtime_r(&now.tv_sec, &utc);
  size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
  return len + (size_t)snprintf(line + len, size - len, ".%03dZ %s ", (int)(now.tv_nsec / 1000000), names[level]);
}

static void write_all(const char *bytes, size_t len) {
  while (len > 0) {
    ssize_t written = write(STDERR_FILENO, bytes, len);
    if (written < 0 && errno != EINTR)
      return;
    if (written > 0) {
      bytes += written;
      len -= (size_t)written;
    }
  }
}

void esp_log(enum esp_log_level level, const char *format, ...) {
  if (level < level_least)
    return;
  int errno_before = errno;
  char line[LINE_BYTES_MAX];
  size_t start = print_prefix(line, sizeof(line), level);
  size_t room = sizeof(line) - start - 1; /* the newline's byte */
  va_list args;
  va_start(args, format);
  int printed = vsnprintf(line + start, room, format, args);
  va_end(args);
  size_t len = printed < 0 ? 0 : (size_t)printed < room ? (size_t)printed : room - 1;
  for (size_t i = start; i < start + len; i++)
    if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
      line[i] = ' ';
  line[start + len] = '\n';
  write_all(line, start + len + 1);
  errno = errno_before;
}
