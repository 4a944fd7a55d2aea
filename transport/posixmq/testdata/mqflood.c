/* mqflood NAME SIZE: sends messages of so many bytes, of every priority, until it is killed. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	unsigned i;
	mqd_t q;
	char *body;
	size_t size;

	if (argc != 3)
		return 2;
	q = mq_open(argv[1], O_WRONLY);
	size = atoi(argv[2]);
	body = calloc(1, size ? size : 1);
	if (q == (mqd_t)-1)
		return 1;
	for (i = 0; mq_send(q, body, size, i % 32768) == 0; i++)
		;
	return 1;
}
