/*
 * consumer receives so many messages from a POSIX message queue, mq_overview(7), and prints a line for
 * each: its priority, a space, and the message. It waits while there are none.
 * It knows nothing of ipcd: mq_open and mq_receive are all it uses.
 */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	static char message[1 << 20];

	if (argc != 3) {
		fprintf(stderr, "usage: consumer /QUEUE COUNT\n");
		return 2;
	}
	mqd_t queue = mq_open(argv[1], O_RDONLY);
	if (queue == (mqd_t)-1) {
		perror("mq_open");
		return 1;
	}
	for (int left = atoi(argv[2]); left > 0; left--) {
		unsigned priority;
		ssize_t length = mq_receive(queue, message, sizeof message, &priority);
		if (length < 0) {
			perror("mq_receive");
			return 1;
		}
		printf("%u %.*s\n", priority, (int)length, message);
		fflush(stdout);
	}
	return 0;
}
