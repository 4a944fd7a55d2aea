//go:build linux

package flood

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/ipcd/ipcd/client"
)

// bodyBytes is how large a message is, the victim's and that of most floods.
const bodyBytes = 128

// play is what a process of this package does.
func play(role, socket string) error {
	c, err := client.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if role == "victim" {
		return beVictim(c)
	}
	return flood(role, socket, c)
}

// measurement is what the victim met with: how long a Send took until it was acknowledged, and after it a Receive that
// consumes the message.
type measurement struct {
	Count         int
	Send, Receive percentiles
}

// percentiles are in microseconds.
type percentiles struct{ P50, P99, P999 float64 }

// beVictim measures for as long as each line of the standard input says.
func beVictim(c *client.Client) error {
	ctx := context.Background()
	if _, err := c.CreateQueue(ctx, "/victim", client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}}); err != nil {
		return err
	}
	q := c.Queue("/victim")
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		d, err := time.ParseDuration(lines.Text())
		if err != nil {
			return err
		}
		m, err := measure(ctx, q, d)
		if err != nil {
			return err
		}
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return nil
}

func measure(ctx context.Context, q *client.Queue, d time.Duration) (measurement, error) {
	var sends, receives []time.Duration
	body := make([]byte, bodyBytes)
	for end := time.Now().Add(d); time.Now().Before(end); {
		began := time.Now()
		if _, err := q.Send(ctx, client.Message{Body: body}); err != nil {
			return measurement{}, err
		}
		sent := time.Now()
		got, err := q.Receive(ctx, 1, client.ReceiveOptions{Wait: time.Minute, AtOnce: true})
		if err != nil || len(got) != 1 {
			return measurement{}, fmt.Errorf("%d messages came: %v", len(got), err)
		}
		sends, receives = append(sends, sent.Sub(began)), append(receives, time.Since(sent))
	}
	return measurement{Count: len(sends), Send: percentilesOf(sends), Receive: percentilesOf(receives)}, nil
}

func percentilesOf(all []time.Duration) percentiles {
	slices.Sort(all)
	at := func(part float64) float64 {
		return float64(all[int(part*float64(len(all)-1))].Nanoseconds()) / 1e3
	}
	return percentiles{P50: at(0.5), P99: at(0.99), P999: at(0.999)}
}
