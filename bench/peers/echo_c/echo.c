/* The floor for one call at a time: a ROUTER that sends back what comes, with nothing but libzmq around it.
 *
 * Says where it listens as a line of JSON on stdout; ends when its stdin is closed. See Makefile.
 */

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
#include <zmq.h>

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, zmq_strerror(zmq_errno()));
    _exit(1);
}

/* Shutting the context down is the one thing that another thread may do to end a blocking receive. */
static void *wait_for_end(void *context)
{
    char byte[64];
    while (read(STDIN_FILENO, byte, sizeof byte) > 0)
        ;
    zmq_ctx_shutdown(context);
    return NULL;
}

/* One message, frame by frame: the first one names the peer, so it leads the way back, too. */
static int echo(void *router)
{
    int more = 1;
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, router, 0) < 0) {
            zmq_msg_close(&frame);
            return -1;
        }
        more = zmq_msg_more(&frame);
        if (zmq_msg_send(&frame, router, more ? ZMQ_SNDMORE : 0) < 0) {
            zmq_msg_close(&frame);
            return -1;
        }
    }
    return 0;
}

int main(void)
{
    char address[64];
    size_t size = sizeof address;
    int linger = 0;
    pthread_t waiting;
    void *context = zmq_ctx_new();
    void *router = zmq_socket(context, ZMQ_ROUTER);

    if (!router || zmq_setsockopt(router, ZMQ_LINGER, &linger, sizeof linger))
        fail("socket");
    if (zmq_bind(router, "tcp://127.0.0.1:*") || zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, address, &size))
        fail("bind");
    if (pthread_create(&waiting, NULL, wait_for_end, context))
        fail("thread");
    printf("{\"address\":\"%s\"}\n", address);
    fflush(stdout);
    while (!echo(router))
        ;
    if (zmq_errno() != ETERM)
        fail("echo");
    zmq_close(router);
    pthread_join(waiting, NULL);
    zmq_ctx_term(context);
    return 0;
}
