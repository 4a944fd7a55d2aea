/*
 * forks attaches as a producer and forks, without exec. The parent says the child's process id; both then stay until
 * standard input ends. The child keeps all descriptors, among them the socket to the daemon.
 *
 *     forks SOCKET RING
 */
#include "ipcd_ring.h"

int main(int argc, char **argv)
{
	struct ipcd_ring_producer *producer;
	struct ipcd_ring_options options;
	char byte;
	if (argc != 3)
		return 2;
	ipcd_ring_options_init(&options);
	options.socket = argv[1];
	if (ipcd_ring_producer_open(&producer, argv[2], &options) != 0 || ipcd_ring_publish(producer, 1, "before", 6) != 0)
		return 1;
	pid_t child = fork();
	if (child < 0)
		return 1;
	if (child > 0) {
		printf("%d\n", (int)child);
		fflush(stdout);
	}
	while (read(0, &byte, 1) > 0)
		continue;
	return 0;
}
