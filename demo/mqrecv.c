/*
 * mqrecv takes messages from a POSIX message queue, mq_overview(7), and prints them, one a line. It
 * knows nothing of ipcd: mq_open, mq_getattr and mq_receive are all it uses.
 *
 * A message is its type, as 8 bytes in the machine's byte order, and then the text; it is printed as
 * TYPE, a tab, and the text. mqrecv ends after COUNT messages, or by SIGALRM when 10 seconds pass
 * without one.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: mqrecv /QUEUE COUNT\n");
		return 2;
	}
	mqd_t queue = mq_open(argv[1], O_RDONLY);
	if (queue == (mqd_t)-1) {
		fprintf(stderr, "mqrecv: mq_open %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	/* mq_receive wants a buffer for the largest message that the queue may hold. */
	struct mq_attr attr;
	if (mq_getattr(queue, &attr) != 0) {
		fprintf(stderr, "mqrecv: mq_getattr: %s\n", strerror(errno));
		return 1;
	}
	char *message = malloc(attr.mq_msgsize);
	if (message == NULL) {
		fprintf(stderr, "mqrecv: out of memory\n");
		return 1;
	}
	for (long left = strtol(argv[2], NULL, 10); left > 0; left--) {
		alarm(10);
		ssize_t size = mq_receive(queue, message, attr.mq_msgsize, NULL);
		if (size < 0) {
			fprintf(stderr, "mqrecv: mq_receive: %s\n", strerror(errno));
			return 1;
		}
		int64_t type;
		if ((size_t)size < sizeof type) {
			fprintf(stderr, "mqrecv: a message of %zd bytes has no type\n", size);
			return 1;
		}
		memcpy(&type, message, sizeof type);
		printf("%lld\t", (long long)type);
		fwrite(message + sizeof type, 1, size - sizeof type, stdout);
		putchar('\n');
		fflush(stdout);
	}
	free(message);
	return 0;
}
