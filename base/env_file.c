/* Whole files, replaced at once: begin creates PATH.tmp-<random> beside the old file, write appends, commit syncs and
 * renames over it. A failure anywhere leaves the old file as it was, except one of the directory's sync after the
 * rename, where the new file is whole in its place and only its survival of a crash is in doubt. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"

/* Forgets everything; the temporary file is no concern of this. */
static void release(struct esp_atomic_file *file) {
  if (file->file != NULL)
    file->env->file_close(file->env->data, file->file);
  esp_free(file->path);
  esp_free(file->path_tmp);
  *file = (struct esp_atomic_file){0};
}

/* PATH.tmp-<16 hexadecimal digits>, or NULL without memory. */
static char *print_path_tmp(const struct esp_env *env, const char *path) {
  size_t size = strlen(path) + sizeof(".tmp-0123456789abcdef");
  char *path_tmp = esp_malloc(size);
  if (path_tmp != NULL)
    snprintf(path_tmp, size, "%s.tmp-%016" PRIx64, path, env->random_u64(env->data));
  return path_tmp;
}

enum esp_code esp_atomic_file_begin(struct esp_atomic_file *file, const struct esp_env *env, const char *path,
                                    struct esp_status *st) {
  *file = (struct esp_atomic_file){.env = env};
  enum esp_code code = ESP_OK;
  file->path = esp_strdup(path);
  file->path_tmp = print_path_tmp(env, path);
  if (file->path == NULL || file->path_tmp == NULL) {
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "cannot write %s: out of memory", path);
    goto fail;
  }
  code = env->file_create(env->data, file->path_tmp, &file->file, st);
  if (code != ESP_OK)
    goto fail;
  return ESP_OK;
fail:
  release(file);
  return code;
}

enum esp_code esp_atomic_file_write(struct esp_atomic_file *file, const void *bytes, size_t len,
                                    struct esp_status *st) {
  return file->env->file_write(file->env->data, file->file, bytes, len, st);
}

enum esp_code esp_atomic_file_commit(struct esp_atomic_file *file, struct esp_status *st) {
  const struct esp_env *env = file->env;
  enum esp_code code = env->file_sync(env->data, file->file, st);
  if (code == ESP_OK)
    code = env->file_rename(env->data, file->path_tmp, file->path, st);
  if (code == ESP_OK)
    release(file);
  return code;
}

void esp_atomic_file_abort(struct esp_atomic_file *file) {
  if (file->file == NULL)
    return;
  /* A temporary file that can't be removed is rubbish, not harm; after a rename there is none. */
  (void)file->env->file_remove(file->env->data, file->path_tmp, NULL);
  release(file);
}
