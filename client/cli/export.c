/* export: the selected leaves to one safetensors file.
 *
 * The happy path: ask what there is; pull all of it at one commit; write the file. So both sides hold all of it for a
 * moment, the server within --max-copy-on-write. With --piecewise the file is begun first and filled piece by piece:
 * each tensor is whole, but pushes go on meanwhile; the commit is looked at again at the end, and the output says what
 * it was. A failure, or Ctrl-C, leaves an older file as it was. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"
#include "formats/safetensors.h"

#define PIECE_BYTES ((size_t)64 << 20) /* at least one leaf, whatever its size */
#define PIECE_LEAVES 10000

struct export {
  struct esp_cli *cli;
  struct esp_description *description;  /* owned */
  esp_leaf_id *ids;                     /* owned; of the description's leaves */
  struct esp_safetensors_writer writer; /* to be aborted */
  uint64_t commit;                      /* of all values, or the first that they may be of */
  uint64_t commit_after;                /* the last that they may be of */
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  (void)number;
  interrupted = 1;
}

/* The first signal ends the export between two pieces, so that no temporary file stays behind; a second one kills. */
static void catch_signals(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGHUP, &action, NULL);
}

/* ---- what there is ---- */

static enum esp_code find_leaves(struct export *export, struct esp_status *st) {
  const struct esp_description *description = export->description;
  size_t len = description->leaves_len;
  const char **paths = esp_malloc_array(len, sizeof *paths);
  export->ids = esp_malloc_array(len, sizeof *export->ids);
  enum esp_code code = ESP_OK;
  if (paths == NULL || export->ids == NULL)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to list %zu leaves", len);
  for (size_t i = 0; code == ESP_OK && i < len; i++)
    paths[i] = description->leaves[i].path;
  if (code == ESP_OK)
    code = esp_find(export->cli->client, paths, len, export->ids, st);
  esp_free(paths);
  return code;
}

static enum esp_code look(struct export *export, struct esp_status *st) {
  struct esp_cli *cli = export->cli;
  const char *selection = cli->args_len > 1 ? cli->args[1] : NULL;
  enum esp_code code = esp_describe(cli->client, selection, false, &export->description, st);
  if (code != ESP_OK)
    return code;
  if (export->description->leaves_len ==
      0) /* after a restart, say: the last good file is worth more than an empty one */
    return esp_fail(st, ESP_NOT_FOUND,
                    "there is nothing to export: no worker has declared any leaf; %s was not written", cli->args[0]);
  return find_leaves(export, st);
}

static enum esp_code check_lineage(const struct export *export, uint64_t lineage, struct esp_status *st) {
  if (lineage == export->description->lineage)
    return ESP_OK;
  return esp_fail(st, ESP_ABORTED, "the server lost its state during the export; %s was not written",
                  export->cli->args[0]);
}

/* ---- values ---- */

/* Some of the leaves and their values. */
struct piece {
  struct esp_weight *weights; /* owned */
  uint8_t *data;              /* owned; of all weights, one after the other */
};

static void piece_done(struct piece *piece) {
  esp_free(piece->weights);
  esp_free(piece->data);
}

/* The leaf that is number i of a piece: of those that `leaves` lists, or of all. */
static size_t leaf_of(const size_t *leaves, size_t i) {
  return leaves != NULL ? leaves[i] : i;
}

/* Pulls `len` leaves, which `leaves` lists by their places in the description; NULL: the first ones. To be done with
 * piece_done in any case. */
static enum esp_code piece_pull(struct piece *piece, const struct export *export, const size_t *leaves, size_t len,
                                struct esp_pull_result *ret, struct esp_status *st) {
  const struct esp_pull_options options = {.consistent = (export->cli->options & ESP_CLI_PIECEWISE) == 0};
  const struct esp_leaf_info *infos = export->description->leaves;
  uint64_t bytes = 0;
  for (size_t i = 0; i < len; i++)
    bytes += infos[leaf_of(leaves, i)].bytes;
  piece->weights = esp_malloc_array(len, sizeof *piece->weights);
  piece->data = esp_malloc_array(bytes, 1);
  if (piece->weights == NULL || piece->data == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for %" PRIu64 " bytes of values", bytes);
  uint8_t *data = piece->data;
  for (size_t i = 0; i < len; i++) {
    size_t leaf = leaf_of(leaves, i);
    piece->weights[i] = (struct esp_weight){.leaf = export->ids[leaf], .data = data, .bytes = infos[leaf].bytes};
    data += infos[leaf].bytes;
  }
  if (interrupted)
    return esp_fail(st, ESP_CANCELLED, "interrupted; %s was not written", export->cli->args[0]);
  enum esp_code code = esp_pull_with(export->cli->client, piece->weights, len, &options, ret, st);
  return code == ESP_OK ? check_lineage(export, ret->lineage, st) : code;
}

/* ---- the file ---- */

/* Begins the file. Its metadata has the commit of the values, or the first that they may be of. */
static enum esp_code begin(struct export *export, struct esp_status *st) {
  const struct esp_description *description = export->description;
  struct esp_safetensors_tensor *tensors = esp_malloc_array(description->leaves_len, sizeof *tensors);
  if (tensors == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to list %zu leaves", description->leaves_len);
  for (size_t i = 0; i < description->leaves_len; i++) {
    const struct esp_leaf_info *leaf = &description->leaves[i];
    tensors[i] = (struct esp_safetensors_tensor){
        .name = leaf->path, .dtype = (enum esp_dtype)leaf->dtype, .shape = esp_cli_shape_of(leaf->shape, leaf->rank)};
  }
  char lineage[ESP_CLI_TEXT_MAX];
  char commit[ESP_CLI_TEXT_MAX];
  char epoch[ESP_CLI_TEXT_MAX];
  snprintf(commit, sizeof commit, "%" PRIu64, export->commit);
  snprintf(epoch, sizeof epoch, "%" PRIu64, description->epoch);
  /* "pt" says that names and layout are PyTorch's, as paths are; libraries refuse files whose format they don't know.
   */
  const struct esp_safetensors_metadata metadata[] = {{"format", "pt"},
                                                      {"version", esp_version()},
                                                      {"commit", commit},
                                                      {"epoch", epoch},
                                                      {"lineage", esp_cli_print_id(description->lineage, lineage)}};
  enum esp_code code =
      esp_safetensors_begin(&export->writer, export->cli->env, export->cli->args[0], tensors, description->leaves_len,
                            metadata, sizeof metadata / sizeof metadata[0], st);
  esp_free(tensors);
  return code;
}

static enum esp_code export_whole(struct export *export, struct esp_status *st) {
  struct piece piece = {0};
  struct esp_pull_result pulled;
  enum esp_code code = piece_pull(&piece, export, NULL, export->description->leaves_len, &pulled, st);
  if (code == ESP_OK) {
    export->commit = export->commit_after = pulled.commit;
    code = begin(export, st);
  }
  for (size_t i = 0; code == ESP_OK && i < export->description->leaves_len; i++) {
    const struct esp_weight *weight = &piece.weights[export->writer.order[i]];
    code = esp_safetensors_write(&export->writer, weight->data, weight->bytes, st);
  }
  piece_done(&piece);
  return code;
}

/* How many of the leaves, in the order of the file, make the next piece. */
static size_t next_piece(const struct export *export, const size_t *leaves, size_t left) {
  uint64_t bytes = 0;
  size_t len = 0;
  while (len < left && len < PIECE_LEAVES) {
    bytes += export->description->leaves[leaves[len]].bytes;
    if (len > 0 && bytes > PIECE_BYTES)
      break;
    len++;
  }
  return len;
}

static enum esp_code copy_piece(struct export *export, const size_t *leaves, size_t len, struct esp_status *st) {
  struct piece piece = {0};
  struct esp_pull_result pulled;
  enum esp_code code = piece_pull(&piece, export, leaves, len, &pulled, st);
  for (size_t i = 0; code == ESP_OK && i < len; i++)
    code = esp_safetensors_write(&export->writer, piece.weights[i].data, piece.weights[i].bytes, st);
  piece_done(&piece);
  return code;
}

static enum esp_code export_pieces(struct export *export, struct esp_status *st) {
  struct esp_server_info info;
  export->commit = export->description->commit;
  enum esp_code code = begin(export, st);
  size_t left = export->description->leaves_len;
  const size_t *leaves = export->writer.order;
  while (code == ESP_OK && left > 0) {
    size_t len = next_piece(export, leaves, left);
    code = copy_piece(export, leaves, len, st);
    leaves += len;
    left -= len;
  }
  if (code == ESP_OK)
    code = esp_server_info(export->cli->client, &info, st);
  if (code == ESP_OK) {
    export->commit_after = info.commit;
    code = check_lineage(export, info.lineage, st);
  }
  return code;
}

/* ---- the command ---- */

static bool print_exported(const struct export *export) {
  struct esp_cli *cli = export->cli;
  const struct esp_description *description = export->description;
  uint64_t bytes = 0;
  for (size_t i = 0; i < description->leaves_len; i++)
    bytes += description->leaves[i].bytes;
  bool consistent = export->commit == export->commit_after;
  char text[ESP_CLI_TEXT_MAX];
  if ((cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_json_object(
        cli->out, json_pack("{s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:b}", "file", cli->args[0], "leaves",
                            esp_cli_json_u64(description->leaves_len), "bytes", esp_cli_json_u64(bytes), "epoch",
                            esp_cli_json_u64(description->epoch), "lineage",
                            esp_cli_print_id(description->lineage, text), "commit", esp_cli_json_u64(export->commit),
                            "commit_after", esp_cli_json_u64(export->commit_after), "consistent", consistent));
  fprintf(cli->out, "wrote %zu lea%s, %s, to %s\n", description->leaves_len, description->leaves_len == 1 ? "f" : "ves",
          esp_cli_print_bytes(bytes, text), cli->args[0]);
  if (consistent)
    fprintf(cli->out, "all of commit %" PRIu64 "\n", export->commit);
  else
    fprintf(cli->out,
            "training went on meanwhile: each tensor is whole, and of a commit from %" PRIu64 " to %" PRIu64 "\n",
            export->commit, export->commit_after);
  return true;
}

/* Reports it, and what helps where all at once was too much. */
static enum esp_cli_exit fail(struct export *export, const struct esp_status *st) {
  enum esp_cli_exit exit_code = esp_cli_fail(export->cli, st);
  if (st->code == ESP_RESOURCE_EXHAUSTED && (export->cli->options & ESP_CLI_PIECEWISE) == 0)
    fprintf(export->cli->err, "espctl: --piecewise needs little memory, and the values may be of different commits\n");
  return exit_code;
}

enum esp_cli_exit esp_cli_run_export(struct esp_cli *cli) {
  struct esp_status st;
  struct export export = {.cli = cli};
  if (strcmp(cli->args[0], "-") == 0)
    return esp_cli_usage(cli, "export writes a file, not standard output; name one");
  if (esp_cli_is_special(cli->args[0]))
    return esp_cli_usage(cli, "%s is no ordinary file; name one", cli->args[0]);
  catch_signals();
  enum esp_code code = look(&export, &st);
  if (code == ESP_OK)
    code = (cli->options & ESP_CLI_PIECEWISE) != 0 ? export_pieces(&export, &st) : export_whole(&export, &st);
  if (code == ESP_OK)
    code = esp_safetensors_commit(&export.writer, &st);
  esp_safetensors_abort(&export.writer);
  bool ok = code != ESP_OK || print_exported(&export);
  esp_free(export.ids);
  enum esp_cli_exit exit_code = code == ESP_OK ? esp_cli_finish(cli, ok) : fail(&export, &st);
  esp_description_free(export.description);
  return exit_code;
}
