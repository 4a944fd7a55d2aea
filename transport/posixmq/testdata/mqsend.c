/* mqsend NAME: sends each line of the standard input, "PRIORITY BODY", and says "sent" after each. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	mqd_t q;

	if (argc != 2)
		return 2;
	q = mq_open(argv[1], O_WRONLY);
	if (q == (mqd_t)-1) {
		printf("mq_open: %s\n", strerror(errno));
		return 1;
	}
	while ((n = getline(&line, &size, stdin)) > 0) {
		char *body;
		unsigned priority = strtoul(line, &body, 10);
		if (line[n - 1] == '\n')
			n--;
		body++;
		if (mq_send(q, body, line + n - body, priority) != 0) {
			printf("mq_send: %s\n", strerror(errno));
			return 1;
		}
		printf("sent\n");
		fflush(stdout);
	}
	return 0;
}
