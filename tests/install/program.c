/* A program of somebody else, which knows nothing but what is installed. Prints the library's version once the server
 * in $ESPALIER_SERVER has answered. */
#include <espalier/espalier.h>

#include <stdio.h>

int main(void) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  struct esp_status st;
  esp_client *client = NULL;
  if (esp_client_open(&options, &client, &st) || esp_ping(client, &st)) {
    fprintf(stderr, "%s: %s\n", esp_code_name(st.code), st.message);
    return 1;
  }
  printf("%s\n", esp_version());
  esp_client_close(client);
  return 0;
}
