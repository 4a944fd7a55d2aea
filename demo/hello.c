/* hello sends one message to the queue /orders through its POSIX message queue. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>

int main(void)
{
	mqd_t orders = mq_open("/orders", O_WRONLY);
	if (orders == (mqd_t)-1 || mq_send(orders, "a chair", 7, 5) != 0) { /* 5: the priority */
		perror("/orders");
		return 1;
	}
	return 0;
}
