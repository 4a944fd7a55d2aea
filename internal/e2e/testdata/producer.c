/*
 * producer sends its arguments to a POSIX message queue, mq_overview(7), and waits while that is full.
 * It knows nothing of ipcd: mq_open and mq_send are all it uses.
 */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: producer /QUEUE PRIORITY MESSAGE...\n");
		return 2;
	}
	mqd_t queue = mq_open(argv[1], O_WRONLY);
	if (queue == (mqd_t)-1) {
		perror("mq_open");
		return 1;
	}
	for (int i = 3; i < argc; i++) {
		if (mq_send(queue, argv[i], strlen(argv[i]), strtoul(argv[2], NULL, 10)) != 0) {
			perror("mq_send");
			return 1;
		}
	}
	return 0;
}
