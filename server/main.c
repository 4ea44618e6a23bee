/* espalierd: from flags and config to a running server. Happy path: options, engine, plan, gRPC server, signals, one
 * ready line on stdout, and then the loop until a drain is over: exit 0. Bad options are one line on stderr and exit 2;
 * what the machine refuses (an address in use, memory) is one line and exit 1. */
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>

#include "base/env.h"
#include "base/log.h"
#include "engine/engine.h"
#include "ops/ops.h"
#include "options/options.h"
#include "plan/plan.h"
#include "rpc/rpc.h"

enum { EXIT_DRAINED = 0, EXIT_MACHINE = 1, EXIT_USAGE = 2 };

/* gRPC's 64 KiB slices would otherwise go back to the kernel after each message, and be faulted in again: up to half
 * the speed. Sanitizers bring an allocator of their own, which takes no such advice. */
static void malloc_tune(void) {
  (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
  (void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
  (void)mallopt(M_TOP_PAD, 64 << 20);
}

static int fail(enum esp_code code, const struct esp_status *st) {
  fprintf(stderr, "espalierd: %s\n", st->message);
  switch (code) {
  case ESP_INVALID_ARGUMENT:
  case ESP_FAILED_PRECONDITION:
  case ESP_UNIMPLEMENTED:
  case ESP_NOT_FOUND:
    return EXIT_USAGE;
  default:
    return EXIT_MACHINE;
  }
}

static enum esp_code listen_check(const struct esp_options *options, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < options->listen.len && !code; i++) {
    struct esp_status why;
    code = esp_listen_check(options->listen.items[i], options->insecure, &why);
    if (code) {
      code = esp_fail(st, code, "--listen: %s", why.message);
    }
  }
  return code;
}

static enum esp_code engine_start(const struct esp_options *options, struct esp_engine **ret, struct esp_status *st) {
  struct esp_status why;
  enum esp_code code = esp_engine_new(
      &(struct esp_engine_options){
          .env = esp_env_system(),
          .threads = (unsigned)options->threads,
          .isa = options->isa,
          .max_staged = options->max_staged,
          .max_copy_on_write = options->max_copy_on_write,
          .max_tree = options->max_tree,
          .max_tensor = options->max_tensor,
          .max_chunk = options->max_chunk,
          .max_in_flight = options->max_in_flight,
          .max_pushes = options->max_pushes,
          .stall_timeout_ms = options->stall_timeout_ms,
          .lease_ms = options->lease_ms,
          .session_retention_ms = options->session_retention_ms,
          .max_sessions = options->max_sessions,
          .on_nonfinite = (enum esp_nonfinite)options->on_nonfinite,
          .groups = options->groups,
          .groups_len = options->group.len,
          .assigns = options->assigns,
          .assigns_len = options->assign.len,
      },
      ret, &why);
  if (code == ESP_INVALID_ARGUMENT || code == ESP_UNIMPLEMENTED) { /* all else was checked before */
    return esp_fail(st, code, "--group, --assign: %s", why.message);
  }
  return code ? esp_fail(st, code, "%s", why.message) : ESP_OK;
}

static void on_plan(void *data, enum esp_code code, const struct esp_status *st, const struct esp_apply_reply *reply) {
  const struct esp_options *options = data;
  if (code) {
    esp_log(ESP_LOG_ERROR, "pushes are refused, since the plan can't be applied: %s", st->message);
  } else {
    esp_log(ESP_LOG_INFO, "the plan %s was applied: epoch %" PRIu64 ", %zu changes", options->plan, reply->epoch,
            reply->diff.len);
  }
}

/* The plan is used for as long as the engine is there. */
static enum esp_code plan_start(const struct esp_options *options, struct esp_engine *engine,
                                struct esp_plan_request *plan, struct esp_status *st) {
  struct esp_status why;
  if (!options->plan) {
    return ESP_OK;
  }
  enum esp_code code = esp_engine_plan(engine, &plan->request, on_plan, (void *)options, &why);
  if (code) {
    return esp_fail(st, code, "--plan: %s", why.message);
  }
  if (esp_engine_plan_waits(engine, &why)) {
    esp_log(ESP_LOG_INFO, "pushes are refused until the plan %s can be applied: %s", options->plan, why.message);
  }
  return ESP_OK;
}

static void ready_print(const struct esp_rpc_server *server) {
  const char *const *addresses = NULL;
  size_t len = esp_rpc_server_addresses(server, &addresses);
  printf("espalierd %s ready on", ESPALIER_VERSION);
  for (size_t i = 0; i < len; i++) {
    printf(" %s", addresses[i]);
  }
  printf("\n");
  if (fflush(stdout)) {
    esp_log(ESP_LOG_WARN, "the ready line could not be written to stdout");
  }
}

static enum esp_code serve(const struct esp_options *options, struct esp_status *st) {
  struct esp_engine *engine = NULL;
  struct esp_rpc_server *server = NULL;
  struct esp_ops *ops = NULL;
  struct esp_plan_request plan = {0};
  const struct esp_rpc_options rpc_options = {
      .listen = (const char *const *)options->listen.items,
      .listen_len = options->listen.len,
      .threads = (unsigned)options->rpc_threads,
      .max_connections = options->max_connections,
      .max_streams = (unsigned)options->max_streams,
      .max_message = options->max_message,
      .max_in_flight = options->max_in_flight,
      .stall_timeout_ms = options->stall_timeout_ms,
      .idle_timeout_ms = options->idle_timeout_ms,
      .keepalive_ms = options->keepalive_ms,
      .keepalive_timeout_ms = options->keepalive_timeout_ms,
  };
  enum esp_code code = ESP_OK;
  if ((code = listen_check(options, st)) ||
      (options->plan &&
       (code = esp_plan_request_read(options->plan, options->groups, options->group.len, &plan, st))) ||
      (code = engine_start(options, &engine, st)) || (code = plan_start(options, engine, &plan, st)) ||
      (code = esp_ops_new(engine, options->drain_timeout_ms, &ops, st)) ||
      (code = esp_rpc_server_new(&rpc_options, engine, &server, st))) {
    goto done;
  }
  esp_log(ESP_LOG_INFO, "%u threads run kernels for %s, %u serve; up to %llu MiB are staged",
          (unsigned)options->threads, esp_isa_name(options->isa), rpc_options.threads,
          (unsigned long long)(options->max_staged >> 20));
  ready_print(server);
  esp_ops_run(ops, server);
done:
  esp_ops_free(ops);
  esp_rpc_server_free(server);
  esp_engine_free(engine);
  esp_plan_request_done(&plan);
  return code;
}

int main(int argc, char **argv) {
  struct esp_options options;
  struct esp_status st = {0};
  int result = EXIT_DRAINED;
  malloc_tune();
  signal(SIGPIPE, SIG_IGN); /* a log that nobody reads any more is no reason to end */
  enum esp_code code = esp_options_parse(argc, argv, &options, &st);
  if (code) {
    result = fail(code, &st);
  } else if (options.help) {
    esp_options_print_help(stdout);
  } else if (options.version) {
    printf("espalierd %s\n", ESPALIER_VERSION);
  } else if (options.print_markdown) {
    esp_options_print_markdown(stdout);
  } else {
    esp_log_level_set((enum esp_log_level)options.log_level);
    code = serve(&options, &st);
    result = code ? fail(code, &st) : EXIT_DRAINED;
  }
  esp_options_done(&options);
  return result;
}
