package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
)

// reloadView is what reload shows as json and yaml.
type reloadView struct {
	Applied     []string `json:"applied"`
	NeedRestart []string `json:"need_restart"`
	Refused     []string `json:"refused"`
	Warnings    []string `json:"warnings"`
}

func newReload(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Let the daemon read its configuration again",
		Long: `Let the daemon read its configuration again, and wait until it has. What can change while it runs is in force
then; stdout says what that was, stderr what counts from the next start on. If there is a mistake anywhere in the
configuration nothing changes, and stderr says all that is wrong (ipcd check says it beforehand).

Where a declared queue or ring could not be made or changed stderr says so, and the exit code is 1. Only root, the
daemon's user and members of its admin_group may reload.`,
		Example: `  ipcctl reload
  ipcd check && ipcctl reload
  ipcctl reload -o json | jq .need_restart`,
		Args: noArgs,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			r, err := c.Reload(ctx)
			if errors.Is(err, client.ErrConfigInvalid) {
				for line := range strings.Lines(err.Error()) { // one for each mistake
					a.say("ipcctl: %s", escapeLine(strings.TrimSuffix(line, "\n")))
				}
				a.say("nothing has changed")
				return reported(exitCode(err))
			}
			if err != nil {
				return err
			}
			return a.sayReloaded(r, output)
		}),
	}
	addOutput(cmd, &output, "text", "json", "yaml")
	return cmd
}

func (a *app) sayReloaded(r client.Reloaded, output string) error {
	var b bytes.Buffer
	view := reloadView{append([]string{}, r.Applied...), append([]string{}, r.NeedRestart...), append([]string{}, r.Refused...), append([]string{}, r.Warnings...)}
	if err := writeDocument(&b, output, view); err != nil {
		return err
	}
	if output == "text" {
		for _, key := range r.Applied {
			b.WriteString("applied " + escapeLine(key) + "\n")
		}
	}
	if err := a.print(b.String()); err != nil {
		return err
	}
	if output == "text" {
		for _, key := range r.NeedRestart {
			a.say("needs a restart: %s", escapeLine(key))
		}
		if len(r.Applied)+len(r.NeedRestart)+len(r.Refused) == 0 {
			a.say("nothing had changed")
		}
	}
	for _, warning := range r.Warnings {
		a.say("ipcctl: warning: %s", escapeLine(warning))
	}
	for _, refusal := range r.Refused {
		a.say("ipcctl: refused: %s", escapeLine(refusal))
	}
	if len(r.Refused) > 0 {
		return reported(exitFailure)
	}
	return nil
}

// writeDocument writes v as indented json or as yaml; as anything else, nothing.
func writeDocument(b *bytes.Buffer, output string, v any) error {
	switch output {
	case "yaml":
		return writeYAML(b, v)
	case "json":
		text, err := marshalJSON(v)
		if err != nil {
			return err
		}
		if err := json.Indent(b, text, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	return nil
}

func newMetrics(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Write the daemon's metrics, as Prometheus reads them",
		Long: `Write what the daemon's HTTP address has under /metrics, whether or not it has one, in the text format of
Prometheus (version 0.0.4). Only root, the daemon's user and members of its admin_group may.`,
		Example: `  ipcctl metrics
  ipcctl metrics | grep '^ipcd_queue_'
  ipcctl metrics > ipcd.new && mv ipcd.new ipcd.prom          (in the directory of node_exporter's textfile collector)`,
		Args: noArgs,
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			metrics, err := c.Metrics(ctx)
			if err != nil {
				return err
			}
			text := string(metrics)
			if a.outTTY {
				text = escapeText(text, "")
			}
			return a.print(text)
		}),
	}
}
