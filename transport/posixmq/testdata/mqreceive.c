/* mqreceive NAME COUNT: receives so many messages and prints each as "PRIORITY LENGTH BODY". */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct mq_attr attr;
	char *buffer;
	mqd_t q;
	int i;

	if (argc != 3)
		return 2;
	q = mq_open(argv[1], O_RDONLY);
	if (q == (mqd_t)-1 || mq_getattr(q, &attr) != 0) {
		printf("mq_open: %s\n", strerror(errno));
		return 1;
	}
	buffer = malloc(attr.mq_msgsize);
	for (i = 0; i < atoi(argv[2]); i++) {
		unsigned priority;
		ssize_t n = mq_receive(q, buffer, attr.mq_msgsize, &priority);
		if (n < 0) {
			printf("mq_receive: %s\n", strerror(errno));
			return 1;
		}
		printf("%u %zd %.*s\n", priority, n, (int)n, buffer);
		fflush(stdout);
	}
	return 0;
}
