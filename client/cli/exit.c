/* Exit codes: the one table of them. Scripts tell by it what to do next; docs/espctl.md repeats it. */
#include "client/cli/cli.h"

#define BIT(code) (1u << (code))

static const struct {
  enum esp_cli_exit exit;
  unsigned codes; /* status codes that end in it, as bits */
  const char *meaning;
} exits[] = {
    {ESP_CLI_DONE, BIT(ESP_OK), "done, or there was nothing to change"},
    {ESP_CLI_FAILED, BIT(ESP_CANCELLED) | BIT(ESP_UNKNOWN) | BIT(ESP_INTERNAL) | BIT(ESP_DATA_LOSS),
     "any other failure, also of a file that cannot be written"},
    {ESP_CLI_USAGE, 0, "the command line is wrong, or a line of a file of operations"},
    {ESP_CLI_NOT_FOUND, BIT(ESP_NOT_FOUND), "no such leaf, nothing matches the selection, or no such file"},
    {ESP_CLI_REFUSED,
     BIT(ESP_INVALID_ARGUMENT) | BIT(ESP_FAILED_PRECONDITION) | BIT(ESP_ABORTED) | BIT(ESP_ALREADY_EXISTS) |
         BIT(ESP_OUT_OF_RANGE),
     "refused, nothing changed: epoch, too many leaves, bad selection or tensor"},
    {ESP_CLI_NO_ANSWER, BIT(ESP_UNAVAILABLE) | BIT(ESP_DEADLINE_EXCEEDED), "no server there, or no answer in time"},
    {ESP_CLI_UNIMPLEMENTED, BIT(ESP_UNIMPLEMENTED), "this server, or espctl, can't do that yet"},
    {ESP_CLI_NOT_PERMITTED, BIT(ESP_PERMISSION_DENIED) | BIT(ESP_UNAUTHENTICATED), "not permitted"},
    {ESP_CLI_NO_ROOM, BIT(ESP_RESOURCE_EXHAUSTED), "out of memory, of disk, or of what the server's options allow"},
};

enum esp_cli_exit esp_cli_exit_of(enum esp_code code) {
  for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++)
    if ((unsigned)code < 32 && (exits[i].codes & BIT(code)) != 0)
      return exits[i].exit;
  return ESP_CLI_FAILED;
}

void esp_cli_print_exit_codes(FILE *out) {
  for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++)
    fprintf(out, "  %d  %s\n", (int)exits[i].exit, exits[i].meaning);
}
