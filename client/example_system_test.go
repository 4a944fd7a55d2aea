package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"

	"github.com/ipcd/ipcd/client"
)

func ExampleWithTLS() {
	c, err := client.Dial("ipcd.example.org:7475", client.WithTLS(client.TLS{
		CertFile: "/etc/worker/cert.pem", // files are read again for each connection
		KeyFile:  "/etc/worker/key.pem",
		CAFile:   "/etc/worker/ca.pem",
	}))
	if errors.Is(err, client.ErrInvalidArgument) { // a file is missing, or the key is another one's
		fmt.Println(err)
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	// Output: authorities: open /etc/worker/ca.pem: no such file or directory
}

// local returns a client of the daemon on this host.
func local() *client.Client {
	c, err := client.Dial("")
	if err != nil {
		log.Fatal(err)
	}
	return c
}

func ExampleClient_Info() {
	c := local()
	defer c.Close()
	info, err := c.Info(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Caller.Kind, info.Caller.UID, info.Caller.Admin)
	// Output: unix 7 true
}

func ExampleClient_CheckHealth() {
	c := local()
	defer c.Close()
	fmt.Println(c.CheckHealth(context.Background()))
	// Output: <nil>
}

func ExampleClient_Reload() {
	c := local()
	defer c.Close()
	r, err := c.Reload(context.Background())
	if errors.Is(err, client.ErrConfigInvalid) {
		log.Fatalf("nothing has changed: %v", err)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("in force:", strings.Join(r.Applied, ", "))
	fmt.Println("from the next start on:", strings.Join(r.NeedRestart, ", "))
	// Output:
	// in force: log_level, queues./jobs
	// from the next start on: state_dir
}

func ExampleClient_Metrics() {
	c := local()
	defer c.Close()
	text, err := c.Metrics(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", text)
	// Output: ipcd_up 1
}

func ExampleClient_Clients() {
	c := local()
	defer c.Close()
	for conn, err := range c.Clients(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		for _, use := range conn.Uses {
			fmt.Printf("%s (pid %d): %s %s, %d behind\n", conn.Command, conn.Caller.PID, use.Method, use.Name, use.Behind)
		}
	}
	// Output: worker (pid 42): Consume /jobs, 5 behind
}

func ExampleClient_Quotas() {
	c := local()
	defer c.Close()
	for of, err := range c.Quotas(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		for _, q := range of.Quotas {
			if q.Resource == client.ResourceStreams && q.Limit == client.Unlimited {
				fmt.Println(of.Who, q.Used)
			}
		}
	}
	// Output:
	// uid 7 3
	// certificate "CN=a" 3
	// anonymous 3
}

func ExampleClient_SetQuota() {
	c := local()
	defer c.Close()
	quotas, err := c.SetQuota(context.Background(), client.User(1000), client.QuotaChange{
		Limits: map[string]int64{client.ResourceQueuedBytes: 1 << 30},
		Reset:  []string{client.ResourceQueues},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, q := range quotas.Quotas {
		if q.Resource == client.ResourceQueuedBytes {
			fmt.Println(quotas.Who, q.Used, q.Limit, q.Source)
		}
	}
	_, err = c.SetQuota(context.Background(), client.User(1000), client.QuotaChange{Reset: []string{client.ResourceQueuedBytes}})
	fmt.Println(err)
	// Output:
	// uid 1000 1 1073741824 set
	// <nil>
}
