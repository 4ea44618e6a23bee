/* The table of options, and what is printed from it: --help and the reference in docs/server.md. */
#include "options/table.h"

#include <stdio.h>
#include <string.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define SECOND UINT64_C(1000)
#define HOUR (3600 * SECOND)
#define FIELD(name) offsetof(struct esp_options, name)

static uint64_t threads_default(void) {
  uint64_t cores = esp_machine_cores();
  return cores < 256 ? cores : 256;
}

static uint64_t rpc_threads_default(void) {
  uint64_t cores = esp_machine_cores();
  if (cores <= 2) {
    return 1;
  }
  return cores / 2 < 4 ? cores / 2 : 4;
}

static uint64_t quarter_of_memory(void) {
  uint64_t quarter = esp_machine_memory() / 4;
  return quarter > KIB ? quarter : KIB;
}

static uint64_t max_tree_default(void) {
  uint64_t most = esp_machine_memory() / 2;
  return most > KIB ? most : KIB;
}

const struct esp_option esp_option_table[] = {
    {.name = "config",
     .type = ESP_OPTION_TEXT,
     .where = ESP_OPTION_FLAG,
     .field = FIELD(config),
     .words = "FILE",
     .help = "Read options from this YAML file; flags win over it."},
    {.name = "listen",
     .type = ESP_OPTION_LIST,
     .field = FIELD(listen),
     .words = "ADDRESS",
     .value = "127.0.0.1:7433",
     .help =
         "Listen here: HOST:PORT, [IPV6]:PORT or unix:PATH. Port 0 picks a free one. What is neither loopback nor a "
         "Unix socket needs --insecure."},
    {.name = "insecure",
     .type = ESP_OPTION_BOOL,
     .field = FIELD(insecure),
     .value = "false",
     .help = "Listen on other addresses than loopback although nothing is encrypted and nobody is asked who they are."},
    {.name = "threads",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(threads),
     .min = 1,
     .max = 256,
     .compute = threads_default,
     .computed = "the number of cores",
     .help = "Threads that run the optimizers' kernels. Results do not depend on it."},
    {.name = "rpc-threads",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(rpc_threads),
     .min = 1,
     .max = 64,
     .compute = rpc_threads_default,
     .computed = "1 on up to 2 cores, else half the cores, at most 4",
     .help = "Threads that receive and send messages."},
    {.name = "isa",
     .type = ESP_OPTION_CHOICE,
     .field = FIELD(isa_choice),
     .words = "auto|sse2|avx2|avx512",
     .value = "auto",
     .help = "Instruction set of the kernels; auto is the best that the machine has. Results do not depend on it."},
    {.name = "max-staged",
     .type = ESP_OPTION_SIZE,
     .field = FIELD(max_staged),
     .min = KIB,
     .max = KIB << 34,
     .compute = quarter_of_memory,
     .computed = "a quarter of the machine's or cgroup's memory",
     .help =
         "Memory for pushes that are on their way and values that are staged. A larger push is refused, others wait "
         "for their turn."},
    {.name = "max-copy-on-write",
     .type = ESP_OPTION_SIZE,
     .field = FIELD(max_copy_on_write),
     .min = KIB,
     .max = KIB << 34,
     .compute = quarter_of_memory,
     .computed = "a quarter of the machine's or cgroup's memory",
     .help =
         "Memory for tensors that are kept as they were for pulls under way while pushes go on. A consistent pull "
         "reserves as much as all of its tensors before it begins, any other as much as the one that it is at; a pull "
         "that needs more is refused, others wait for their turn."},
    {.name = "max-tree",
     .type = ESP_OPTION_SIZE,
     .field = FIELD(max_tree),
     .min = KIB,
     .max = KIB << 34,
     .compute = max_tree_default,
     .computed = "half of the machine's or cgroup's memory",
     .help = "Memory for parameters and optimizer state. A declaration that would exceed it is refused."},
    {.name = "stall-timeout",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(stall_timeout_ms),
     .min = 100,
     .max = 24 * HOUR,
     .value = "30s",
     .help =
         "End a push or a reader that makes no progress for this long, and a new connection that says nothing (after "
         "10s at most)."},
    {.name = "drain-timeout",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(drain_timeout_ms),
     .min = 0,
     .max = HOUR,
     .value = "3s",
     .help = "After SIGTERM or SIGINT, cancel what has not ended by itself after this long."},
    {.name = "lease",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(lease_ms),
     .min = 100,
     .max = 24 * HOUR,
     .value = "30s",
     .help = "A worker that is not heard of for this long is no longer counted as live."},
    {.name = "session-retention",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(session_retention_ms),
     .min = 100,
     .max = 8760 * HOUR,
     .value = "24h",
     .help = "Remember a session's sequence numbers for this long after its lease, so that a late retry is not applied "
             "twice."},
    {.name = "max-sessions",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(max_sessions),
     .min = 1,
     .max = 1000000,
     .value = "10000",
     .help = "Sessions remembered at once."},
    {.name = "max-connections",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(max_connections),
     .min = 1,
     .max = 1000000,
     .value = "1000",
     .help = "Connections open at once; one more is closed as soon as it is made. The limit of open files is raised to "
             "what they need, as far as the machine lets it."},
    {.name = "max-streams",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(max_streams),
     .min = 1,
     .max = 1000000,
     .value = "1000",
     .help = "Calls open at once on one connection."},
    {.name = "max-pushes",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(max_pushes),
     .min = 1,
     .max = 1000000,
     .value = "10000",
     .help = "Pushes that have begun and are not answered, of all sessions and without one. One more is refused."},
    {.name = "max-in-flight",
     .type = ESP_OPTION_COUNT,
     .field = FIELD(max_in_flight),
     .min = 1,
     .max = ESP_IN_FLIGHT_MAX,
     .value = "64",
     .help = "The same of one session. A stream is not read on while it has so many requests that are not answered."},
    {.name = "max-message",
     .type = ESP_OPTION_SIZE,
     .field = FIELD(max_message),
     .min = ESP_OPTION_MESSAGE_SLACK + MIB,
     .max = 2047 * MIB,
     .value = "4160KiB",
     .help = "The largest message that is taken; --max-chunk and 64KiB for what is around it at least."},
    {.name = "max-chunk",
     .type = ESP_OPTION_SIZE,
     .field = FIELD(max_chunk),
     .min = MIB,
     .max = KIB * MIB,
     .value = "4MiB",
     .help = "The most bytes of a tensor in one chunk. It bounds no tensor, since a tensor has any number of chunks."},
    {.name = "max-tensor",
     .type = ESP_OPTION_SIZE,
     .field = FIELD(max_tensor),
     .min = KIB,
     .max = KIB << 34,
     .compute = max_tree_default,
     .computed = "three quarters of the machine's or cgroup's memory",
     .help = "The largest leaf that may be declared."},
    {.name = "idle-timeout",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(idle_timeout_ms),
     .min = 100,
     .max = 24 * HOUR,
     .value = "1h",
     .help = "Close a connection that has had no call for this long. Clients connect again by themselves."},
    {.name = "keepalive",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(keepalive_ms),
     .min = 100,
     .max = 24 * HOUR,
     .value = "60s",
     .help = "Ask a connection that has been silent for this long for a sign of life."},
    {.name = "keepalive-timeout",
     .type = ESP_OPTION_DURATION,
     .field = FIELD(keepalive_timeout_ms),
     .min = 100,
     .max = HOUR,
     .value = "30s",
     .help = "Close a connection that gives none for this long, and with it its calls."},
    {.name = "on-nonfinite",
     .type = ESP_OPTION_CHOICE,
     .field = FIELD(on_nonfinite),
     .words = "reject|skip", /* the order of enum esp_nonfinite */
     .value = "reject",
     .help =
         "What becomes of a push with a NaN or an infinity in a gradient: an error, or a commit that steps nothing."},
    {.name = "group",
     .type = ESP_OPTION_LIST,
     .field = FIELD(group),
     .words = "NAME=EXPR",
     .value = "default=sgd(lr=0.01)",
     .help =
         "Define an optimizer group. The group named default steps what no assignment covers; where it is not given "
         "it is the one shown here."},
    {.name = "assign",
     .type = ESP_OPTION_LIST,
     .field = FIELD(assign),
     .words = "PATH=GROUP",
     .help =
         "Put everything at or below a path of the tree in a group; the nearest enclosing assignment wins. An empty "
         "PATH is the root."},
    {.name = "plan",
     .type = ESP_OPTION_TEXT,
     .field = FIELD(plan),
     .words = "FILE",
     .help = "Apply the operations in this file, one a line in espctl's words, before any push: at the start, or when "
             "the leaves that they name have been declared. Until then pushes are refused."},
    {.name = "log-level",
     .type = ESP_OPTION_CHOICE,
     .field = FIELD(log_level),
     .words = "debug|info|warn|error", /* the order of enum esp_log_level */
     .value = "info",
     .help = "The least severe lines to log, to stderr."},
    {.name = "version",
     .type = ESP_OPTION_BOOL,
     .where = ESP_OPTION_FLAG,
     .field = FIELD(version),
     .value = "false",
     .help = "Print the version and exit."},
    {.name = "help",
     .type = ESP_OPTION_BOOL,
     .where = ESP_OPTION_FLAG,
     .field = FIELD(help),
     .value = "false",
     .help = "Print this and exit."},
    {.name = "print-options-markdown",
     .type = ESP_OPTION_BOOL,
     .where = ESP_OPTION_HIDDEN,
     .field = FIELD(print_markdown),
     .value = "false",
     .help = "Print the table in docs/server.md and exit."},
    {.name = NULL},
};

size_t esp_option_table_len(void) {
  return sizeof(esp_option_table) / sizeof(*esp_option_table) - 1;
}

static const char *default_text(const struct esp_option *option) {
  if (option->compute) {
    return option->computed;
  }
  return option->value ? option->value : "none";
}

/* Breaks a text at blanks into indented lines of at most 100 columns. */
static void print_wrapped(FILE *out, const char *indent, const char *text) {
  size_t column = 0;
  while (*text) {
    size_t word = strcspn(text, " ");
    if (column > 0 && column + 1 + word > 100) {
      fputc('\n', out);
      column = 0;
    }
    column += (size_t)fprintf(out, "%s%.*s", column ? " " : indent, (int)word, text);
    text += word;
    text += strspn(text, " ");
  }
  fputc('\n', out);
}

static bool in_file(const struct esp_option *option) {
  return option->where == ESP_OPTION_EVERYWHERE;
}

/* What stands for the value in a usage line. */
static const char *metavariable(const struct esp_option *option) {
  switch (option->type) {
  case ESP_OPTION_COUNT:
    return "NUMBER";
  case ESP_OPTION_SIZE:
    return "SIZE";
  case ESP_OPTION_DURATION:
    return "DURATION";
  default:
    return option->words;
  }
}

static void print_help_of(FILE *out, const struct esp_option *option) {
  char accepts[256], line[512];
  bool valued = option->type != ESP_OPTION_BOOL;
  fprintf(out, "  --%s%s%s\n", option->name, valued ? "=" : "", valued ? metavariable(option) : "");
  print_wrapped(out, "      ", option->help);
  if (!valued || !in_file(option)) {
    return;
  }
  if (option->type == ESP_OPTION_LIST) {
    snprintf(line, sizeof(line), "Repeatable. Default: %s.", default_text(option));
  } else if (option->type == ESP_OPTION_CHOICE) {
    snprintf(line, sizeof(line), "Default: %s.", default_text(option));
  } else {
    snprintf(line, sizeof(line), "Takes %s. Default: %s.", esp_option_accepts(option, accepts, sizeof(accepts)),
             default_text(option));
  }
  print_wrapped(out, "      ", line);
}

void esp_options_print_help(FILE *out) {
  fputs("Usage: espalierd [OPTION]...\n"
        "Serves a tree of parameters: workers push gradients and pull weights, operators change what is trained.\n\n",
        out);
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    if (option->where != ESP_OPTION_HIDDEN) {
      print_help_of(out, option);
    }
  }
}

void esp_options_print_markdown(FILE *out) {
  fputs("| option | takes | default | |\n| --- | --- | --- | --- |\n", out);
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    char accepts[256];
    if (option->where == ESP_OPTION_HIDDEN) {
      continue;
    }
    bool literal = option->value && in_file(option);
    fprintf(out, "| `--%s` | %s%s | %s%s%s | %s%s |\n", option->name,
            esp_option_accepts(option, accepts, sizeof(accepts)), option->type == ESP_OPTION_LIST ? ", repeatable" : "",
            literal ? "`" : "", in_file(option) ? default_text(option) : "", literal ? "`" : "", option->help,
            in_file(option) ? "" : " Not in the file.");
  }
}
