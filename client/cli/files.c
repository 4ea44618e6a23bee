/* get: one tensor to a .npy file. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "formats/npy.h"

bool esp_cli_is_special(const char *file) {
  struct stat info;
  return stat(file, &info) == 0 && !S_ISREG(info.st_mode);
}

static enum esp_code write_to_out(FILE *out, const struct esp_npy *array, struct esp_status *st) {
  char header[ESP_NPY_HEADER_BYTES_MAX];
  size_t header_len = 0;
  enum esp_code code = esp_npy_make_header(array, header, &header_len, st);
  if (code != ESP_OK)
    return code;
  fwrite(header, 1, header_len, out);
  fwrite(array->data, 1, array->bytes, out);
  return ESP_OK; /* the caller asks the stream */
}

static bool print_got(struct esp_cli *cli, const char *path, const char *file, const struct esp_npy *array) {
  const char *dtype = esp_dtype_name(array->dtype);
  if ((cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_json_object(cli->out,
                               json_pack("{s:s, s:s, s:s, s:o, s:I}", "path", path, "file", file, "dtype", dtype,
                                         "shape", esp_cli_json_shape(array->shape.dims, array->shape.rank), "bytes",
                                         esp_cli_json_u64(array->bytes)));
  char shape[ESP_SHAPE_TEXT_MAX];
  char bytes[ESP_CLI_TEXT_MAX];
  fprintf(cli->out, "wrote %s, %s of %s, %s, to %s\n", path, esp_shape_print(&array->shape, shape), dtype,
          esp_cli_print_bytes(array->bytes, bytes), file);
  return true;
}

enum esp_cli_exit esp_cli_run_get(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_tensor tensor;
  const char *file = cli->args[1];
  bool to_out = strcmp(file, "-") == 0;
  if (to_out && (cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_usage(cli, "standard output can't have both the tensor (-) and --json; name a file");
  if (to_out && isatty(fileno(cli->out)))
    return esp_cli_usage(cli, "a tensor is not for a terminal; name a file, or send the output elsewhere");
  if (!to_out && esp_cli_is_special(file))
    return esp_cli_usage(cli, "%s is no ordinary file; name one, or - for standard output", file);
  if (esp_get(cli->client, cli->args[0], &tensor, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  const struct esp_npy array = {.dtype = (enum esp_dtype)tensor.dtype,
                                .shape = esp_cli_shape_of(tensor.shape, tensor.rank),
                                .data = tensor.data,
                                .bytes = tensor.bytes};
  enum esp_code code = to_out ? write_to_out(cli->out, &array, &st) : esp_npy_write(cli->env, file, &array, &st);
  bool ok = code != ESP_OK || to_out || print_got(cli, cli->args[0], file, &array);
  esp_memory_free(tensor.data);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}
