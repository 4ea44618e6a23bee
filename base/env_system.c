/* The machine's own clock, randomness and disk.
 *
 * A file is created exclusively, written whole (short writes and interruptions are continued), synced, renamed, and
 * the directory synced after it. Every failure is a status that names the path and the system's reason. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/env.h"

struct esp_file {
  int fd;      /* open for writing */
  char path[]; /* for messages */
};

static enum esp_code code_of_errno(int error) {
  switch (error) {
  case ENOENT:
  case ENOTDIR:
    return ESP_NOT_FOUND;
  case EEXIST:
    return ESP_ALREADY_EXISTS;
  case EACCES:
  case EPERM:
  case EROFS:
    return ESP_PERMISSION_DENIED;
  case ENOSPC:
  case EDQUOT:
  case EFBIG:
  case EMFILE:
  case ENFILE:
  case ENOMEM:
    return ESP_RESOURCE_EXHAUSTED;
  case EISDIR:
  case ENAMETOOLONG:
  case ELOOP:
    return ESP_INVALID_ARGUMENT;
  default:
    return ESP_INTERNAL;
  }
}

/* The failure that errno tells of. */
static enum esp_code fail_errno(struct esp_status *st, const char *what, const char *path) {
  int error = errno;
  return esp_fail(st, code_of_errno(error), "cannot %s %s: %s", what, path, strerrordesc_np(error));
}

static uint64_t clock_ms(clockid_t clock) {
  struct timespec now;
  ESP_CHECK(clock_gettime(clock, &now) == 0);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t system_now_ms(void *data) {
  (void)data;
  return clock_ms(CLOCK_MONOTONIC);
}

static uint64_t system_wall_ms(void *data) {
  (void)data;
  return clock_ms(CLOCK_REALTIME);
}

static uint64_t system_random_u64(void *data) {
  (void)data;
  uint64_t value;
  ssize_t len;
  do
    len = getrandom(&value, sizeof(value), 0);
  while (len < 0 && errno == EINTR);
  ESP_CHECK(len == (ssize_t)sizeof(value)); /* eight bytes come whole, or the kernel has no randomness at all */
  return value;
}

static enum esp_code system_file_create(void *data, const char *path, struct esp_file **ret, struct esp_status *st) {
  (void)data;
  size_t size = strlen(path) + 1;
  struct esp_file *file = esp_malloc(sizeof(*file) + size);
  if (file == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "cannot create %s: out of memory", path);
  memcpy(file->path, path, size);
  do
    file->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  while (file->fd < 0 && errno == EINTR);
  if (file->fd < 0) {
    enum esp_code code = fail_errno(st, "create", path);
    esp_free(file);
    return code;
  }
  *ret = file;
  return ESP_OK;
}

static enum esp_code system_file_write(void *data, struct esp_file *file, const void *bytes, size_t len,
                                       struct esp_status *st) {
  (void)data;
  for (const char *next = bytes; len > 0;) {
    ssize_t written = write(file->fd, next, len);
    if (written < 0 && errno == EINTR)
      continue;
    if (written < 0)
      return fail_errno(st, "write", file->path);
    next += written;
    len -= (size_t)written;
  }
  return ESP_OK;
}

static enum esp_code system_file_sync(void *data, struct esp_file *file, struct esp_status *st) {
  (void)data;
  return fsync(file->fd) == 0 ? ESP_OK : fail_errno(st, "sync", file->path);
}

static void system_file_close(void *data, struct esp_file *file) {
  (void)data;
  if (file == NULL)
    return;
  close(file->fd); /* what matters was synced: an error here says nothing new */
  esp_free(file);
}

/* Syncs the directory that holds path, so that its new name survives a crash. */
static enum esp_code sync_directory_of(const char *path, struct esp_status *st) {
  const char *slash = strrchr(path, '/');
  size_t len = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
  char *directory = len == 0 ? esp_strdup(".") : esp_strndup(path, len);
  if (directory == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "cannot sync the directory of %s: out of memory", path);
  enum esp_code code = ESP_OK;
  int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0)
    code = fail_errno(st, "sync the directory", directory);
  if (fd >= 0)
    close(fd);
  esp_free(directory);
  return code;
}

static enum esp_code system_file_rename(void *data, const char *from, const char *to, struct esp_status *st) {
  (void)data;
  if (rename(from, to) != 0)
    return esp_fail(st, code_of_errno(errno), "cannot rename %s to %s: %s", from, to, strerrordesc_np(errno));
  return sync_directory_of(to, st);
}

static enum esp_code system_file_remove(void *data, const char *path, struct esp_status *st) {
  (void)data;
  return unlink(path) == 0 ? ESP_OK : fail_errno(st, "remove", path);
}

const struct esp_env *esp_env_system(void) {
  static const struct esp_env env = {
      .now_ms = system_now_ms,
      .wall_ms = system_wall_ms,
      .random_u64 = system_random_u64,
      .file_create = system_file_create,
      .file_write = system_file_write,
      .file_sync = system_file_sync,
      .file_close = system_file_close,
      .file_rename = system_file_rename,
      .file_remove = system_file_remove,
  };
  return &env;
}
