/* Children, and lines to and from them. One that ends too early ends its parent, which ends the others. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define CHILDREN_MAX (3 * WORKERS_MAX + 16)

extern char **environ;

static pid_t children[CHILDREN_MAX]; /* 0: has ended */

void process_kill_all(void) {
  for (size_t i = 0; i < CHILDREN_MAX; i++) {
    if (children[i] != 0)
      kill(children[i], SIGKILL);
  }
}

static void note(pid_t before, pid_t after) {
  for (size_t i = 0; i < CHILDREN_MAX; i++) {
    if (children[i] == before) {
      children[i] = after;
      return;
    }
  }
  bench_die("more than %d children", CHILDREN_MAX);
}

void process_start(struct process *process, const char *const *argv) {
  int to[2], from[2];
  posix_spawn_file_actions_t actions;
  if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0 || posix_spawn_file_actions_init(&actions) != 0)
    bench_die("no pipe: %s", strerror(errno));
  int error = posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  error = error == 0 ? posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO) : error;
  /* It does not write to its arguments. */
  error = error == 0 ? posix_spawn(&process->pid, argv[0], &actions, NULL, (char *const *)argv, environ) : error;
  if (error != 0)
    bench_die("%s: %s", argv[0], strerror(error));
  note(0, process->pid);
  posix_spawn_file_actions_destroy(&actions);
  close(to[0]);
  close(from[1]);
  process->to = fdopen(to[1], "w");
  process->from = fdopen(from[0], "r");
  if (process->to == NULL || process->from == NULL)
    bench_die("no stream: %s", strerror(errno));
}

void process_ask(struct process *process, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vfprintf(process->to, format, args);
  va_end(args);
  if (fputc('\n', process->to) == EOF || fflush(process->to) != 0)
    bench_die("process %d takes nothing", (int)process->pid);
}

void process_answer(struct process *process, char *line, size_t size) {
  if (fgets(line, (int)size, process->from) == NULL)
    bench_die("process %d has ended", (int)process->pid);
  line[strcspn(line, "\n")] = '\0';
}

void process_end(struct process *process, int signal_number) {
  int status;
  if (signal_number != 0)
    kill(process->pid, signal_number);
  fclose(process->to);
  while (waitpid(process->pid, &status, 0) < 0) {
    if (errno != EINTR)
      bench_die("process %d: %s", (int)process->pid, strerror(errno));
  }
  note(process->pid, 0);
  fclose(process->from);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    bench_die("process %d ended with status %d", (int)process->pid, status);
}
