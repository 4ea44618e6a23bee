/* Commands that take tensors away: get (one .npy) and export (a safetensors file).
 *
 * export asks what there is, writes the file's header, then gets one tensor after the other into the file: memory is
 * that of one tensor. Each is whole, but pushes go on meanwhile, so they may be of different commits; it looks at the
 * commit again at the end and says so. A failure, or Ctrl-C, leaves an older file as it was. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/cli/cli.h"
#include "formats/npy.h"
#include "formats/safetensors.h"

static struct esp_shape shape_of(const uint64_t *dims, unsigned rank) {
  struct esp_shape shape = {.rank = rank};
  for (unsigned i = 0; i < rank && i < ESP_RANK_MAX; i++)
    shape.dims[i] = dims[i];
  return shape;
}

/* A file is replaced by a new one of its name, which would make a file of a device or a pipe. */
static bool is_special(const char *file) {
  struct stat info;
  return stat(file, &info) == 0 && !S_ISREG(info.st_mode);
}

/* ---- get ---- */

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
  if (!to_out && is_special(file))
    return esp_cli_usage(cli, "%s is no ordinary file; name one, or - for standard output", file);
  if (esp_get(cli->client, cli->args[0], &tensor, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  const struct esp_npy array = {.dtype = (enum esp_dtype)tensor.dtype,
                                .shape = shape_of(tensor.shape, tensor.rank),
                                .data = tensor.data,
                                .bytes = tensor.bytes};
  enum esp_code code = to_out ? write_to_out(cli->out, &array, &st) : esp_npy_write(cli->env, file, &array, &st);
  bool ok = code != ESP_OK || to_out || print_got(cli, cli->args[0], file, &array);
  esp_memory_free(tensor.data);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}

/* ---- export ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  (void)number;
  interrupted = 1;
}

/* The first signal ends the export between two tensors, so that no temporary file stays behind; a second one kills. */
static void catch_signals(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGHUP, &action, NULL);
}

static enum esp_code begin(struct esp_cli *cli, const struct esp_description *description,
                           struct esp_safetensors_writer *writer, struct esp_status *st) {
  struct esp_safetensors_tensor *tensors = esp_malloc_array(description->leaves_len, sizeof *tensors);
  if (tensors == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to list %zu leaves", description->leaves_len);
  for (size_t i = 0; i < description->leaves_len; i++) {
    const struct esp_leaf_info *leaf = &description->leaves[i];
    tensors[i] = (struct esp_safetensors_tensor){
        .name = leaf->path, .dtype = (enum esp_dtype)leaf->dtype, .shape = shape_of(leaf->shape, leaf->rank)};
  }
  char lineage[ESP_CLI_TEXT_MAX];
  char commit[ESP_CLI_TEXT_MAX];
  char epoch[ESP_CLI_TEXT_MAX];
  snprintf(commit, sizeof commit, "%" PRIu64, description->commit);
  snprintf(epoch, sizeof epoch, "%" PRIu64, description->epoch);
  /* "pt" says that names and layout are PyTorch's, as paths are; libraries refuse files whose format they don't know.
   */
  const struct esp_safetensors_metadata metadata[] = {
      {"format", "pt"},
      {"version", esp_version()},
      {"commit", commit},
      {"epoch", epoch},
      {"lineage", esp_cli_print_lineage(description->lineage, lineage)}};
  enum esp_code code = esp_safetensors_begin(writer, cli->env, cli->args[0], tensors, description->leaves_len, metadata,
                                             sizeof metadata / sizeof metadata[0], st);
  esp_free(tensors);
  return code;
}

/* The header has promised what the leaf was: one that changed its shape meanwhile can't be written. */
static enum esp_code copy_leaf(struct esp_cli *cli, const struct esp_leaf_info *leaf,
                               struct esp_safetensors_writer *writer, struct esp_status *st) {
  struct esp_tensor tensor;
  if (interrupted)
    return esp_fail(st, ESP_CANCELLED, "interrupted; %s was not written", cli->args[0]);
  enum esp_code code = esp_get(cli->client, leaf->path, &tensor, st);
  if (code != ESP_OK)
    return code;
  const struct esp_shape was = shape_of(leaf->shape, leaf->rank);
  const struct esp_shape is = shape_of(tensor.shape, tensor.rank);
  if (tensor.dtype != leaf->dtype || !esp_shape_equal(&was, &is))
    code = esp_fail(st, ESP_ABORTED, "%s changed its shape or dtype during the export; run it again", leaf->path);
  else
    code = esp_safetensors_write(writer, tensor.data, tensor.bytes, st);
  esp_memory_free(tensor.data);
  return code;
}

/* Whether pushes were applied meanwhile, and whether it is still the same server's state. */
static enum esp_code look_again(struct esp_cli *cli, const struct esp_description *description, uint64_t *ret_commit,
                                struct esp_status *st) {
  struct esp_server_info info;
  enum esp_code code = esp_server_info(cli->client, &info, st);
  if (code != ESP_OK)
    return code;
  if (info.lineage != description->lineage)
    return esp_fail(st, ESP_ABORTED, "the server lost its state during the export; %s was not written", cli->args[0]);
  *ret_commit = info.commit;
  return ESP_OK;
}

static enum esp_code export_leaves(struct esp_cli *cli, const struct esp_description *description, uint64_t *ret_commit,
                                   struct esp_status *st) {
  struct esp_safetensors_writer writer;
  if (description->leaves_len == 0) /* after a restart, say: the last good file is worth more than an empty one */
    return esp_fail(st, ESP_NOT_FOUND,
                    "there is nothing to export: no worker has declared any leaf; %s was not written", cli->args[0]);
  enum esp_code code = begin(cli, description, &writer, st);
  if (code != ESP_OK)
    return code;
  for (size_t i = 0; code == ESP_OK && i < writer.order_len; i++)
    code = copy_leaf(cli, &description->leaves[writer.order[i]], &writer, st);
  if (code == ESP_OK)
    code = look_again(cli, description, ret_commit, st);
  if (code == ESP_OK)
    code = esp_safetensors_commit(&writer, st);
  esp_safetensors_abort(&writer);
  return code;
}

static bool print_exported(struct esp_cli *cli, const struct esp_description *description, uint64_t commit) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < description->leaves_len; i++)
    bytes += description->leaves[i].bytes;
  bool consistent = commit == description->commit;
  char text[ESP_CLI_TEXT_MAX];
  if ((cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_json_object(cli->out,
                               json_pack("{s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:b}", "file", cli->args[0], "leaves",
                                         esp_cli_json_u64(description->leaves_len), "bytes", esp_cli_json_u64(bytes),
                                         "epoch", esp_cli_json_u64(description->epoch), "lineage",
                                         esp_cli_print_lineage(description->lineage, text), "commit",
                                         esp_cli_json_u64(description->commit), "commit_after",
                                         esp_cli_json_u64(commit), "consistent", consistent));
  fprintf(cli->out, "wrote %zu lea%s, %s, to %s\n", description->leaves_len, description->leaves_len == 1 ? "f" : "ves",
          esp_cli_print_bytes(bytes, text), cli->args[0]);
  if (consistent)
    fprintf(cli->out, "all of commit %" PRIu64 "\n", commit);
  else
    fprintf(cli->out,
            "training went on meanwhile: each tensor is whole, and of a commit from %" PRIu64 " to %" PRIu64 "\n",
            description->commit, commit);
  return true;
}

enum esp_cli_exit esp_cli_run_export(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_description *description = NULL;
  uint64_t commit = 0;
  if (strcmp(cli->args[0], "-") == 0)
    return esp_cli_usage(cli, "export writes a file, not standard output; name one");
  if (is_special(cli->args[0]))
    return esp_cli_usage(cli, "%s is no ordinary file; name one", cli->args[0]);
  catch_signals();
  const char *selection = cli->args_len > 1 ? cli->args[1] : NULL;
  enum esp_code code = esp_describe(cli->client, selection, false, &description, &st);
  if (code == ESP_OK)
    code = export_leaves(cli, description, &commit, &st);
  bool ok = code != ESP_OK || print_exported(cli, description, commit);
  esp_description_free(description);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}
