/* The methods, each in the file of its concern; methods.c lists them. */
#ifndef ESP_RPC_METHODS_H
#define ESP_RPC_METHODS_H

#include "rpc/call.h"

#define ESP_SHUTDOWN_TEXT "the server is shutting down"
/* A page of a reply is sent once it has grown past this: with one more entry, of some paths, it still is below 1 MiB.
 */
#define ESP_PAGE_BYTES_USUAL (960u << 10)

extern const struct esp_method esp_method_push, esp_method_stage;                       /* push.c */
extern const struct esp_method esp_method_pull;                                         /* pull.c */
extern const struct esp_method esp_method_push_pull;                                    /* stream.c */
extern const struct esp_method esp_method_declare;                                      /* declare.c */
extern const struct esp_method esp_method_join, esp_method_leave, esp_method_heartbeat; /* worker.c */
extern const struct esp_method esp_method_watch;                                        /* watch.c */
extern const struct esp_method esp_method_apply, esp_method_server_info;                /* admin.c */
extern const struct esp_method esp_method_describe;                                     /* describe.c */
extern const struct esp_method esp_method_history;                                      /* history.c */
extern const struct esp_method esp_method_explain;                                      /* explain.c */
extern const struct esp_method esp_method_timers;                                       /* timers.c */
extern const struct esp_method esp_method_workers;                                      /* workers.c */
extern const struct esp_method esp_method_health_check, esp_method_health_watch;        /* health.c */
extern const struct esp_method esp_method_reflection_v1, esp_method_reflection_v1alpha; /* reflection.c */

/* Whether some method is of this service, by its full name. */
bool esp_method_has_service(const char *service);

#endif
