/* Runs a fuzz target on files, without libFuzzer: what makes a corpus a test under any compiler.
 *
 *   fuzz_NAME FOLDER     each file of the folder, in order of names, which are printed, so that the last one named is
 * the one that failed */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static bool replay(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  printf("%s\n", path);
  fflush(stdout);
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
    perror(path);
    return false;
  }
  size_t len = (size_t)ftell(file);
  rewind(file);
  uint8_t *bytes = malloc(len); /* of exactly this size, for ASan */
  bool is_read = fread(bytes, 1, len, file) == len;
  fclose(file);
  if (is_read)
    (void)LLVMFuzzerTestOneInput(bytes, len);
  else
    fprintf(stderr, "%s can't be read\n", path);
  free(bytes);
  return is_read;
}

static int is_input(const struct dirent *entry) {
  return entry->d_name[0] != '.';
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  struct dirent **names = NULL;
  int len = scandir(argv[1], &names, is_input, alphasort);
  if (len <= 0) {
    fprintf(stderr, "%s: no inputs there\n", argv[1]);
    return 1;
  }
  bool is_read = true;
  for (int i = 0; i < len; i++) {
    is_read = is_read && replay(argv[1], names[i]->d_name);
    free(names[i]);
  }
  free(names);
  return is_read ? 0 : 1;
}
