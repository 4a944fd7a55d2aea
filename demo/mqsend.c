/*
 * mqsend sends each line of its input to a POSIX message queue, mq_overview(7). It knows nothing of
 * ipcd: mq_open and mq_send are all it uses.
 *
 * A line is TYPE, a tab, and the text. The message is the type, as 8 bytes in the machine's byte order,
 * and then the text: what a queue with mqueue.type_prefix takes for type and body. When the queue is
 * full mq_send waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: mqsend /QUEUE < LINES\n");
		return 2;
	}
	mqd_t queue = mq_open(argv[1], O_WRONLY);
	if (queue == (mqd_t)-1) {
		fprintf(stderr, "mqsend: mq_open %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	char *line = NULL, *message = NULL;
	size_t capacity = 0;
	ssize_t length;
	long sent = 0;
	while ((length = getline(&line, &capacity, stdin)) > 0) {
		if (line[length - 1] == '\n')
			line[--length] = '\0';
		char *text;
		int64_t type = strtoll(line, &text, 10);
		if (*text++ != '\t') {
			fprintf(stderr, "mqsend: line %ld does not begin with a type and a tab\n", sent + 1);
			return 1;
		}
		size_t size = line + length - text;
		message = realloc(message, sizeof type + size);
		if (message == NULL) {
			fprintf(stderr, "mqsend: out of memory\n");
			return 1;
		}
		memcpy(message, &type, sizeof type);
		memcpy(message + sizeof type, text, size);
		if (mq_send(queue, message, sizeof type + size, 0) != 0) {
			fprintf(stderr, "mqsend: mq_send of line %ld, %zu bytes: %s\n", sent + 1, sizeof type + size, strerror(errno));
			return 1;
		}
		sent++;
	}
	free(line);
	free(message);
	printf("%ld\n", sent);
	return 0;
}
