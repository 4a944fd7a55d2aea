package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/schema"
)

// schemaView is a version of a schema as json and yaml show it.
type schemaView struct {
	Queue      string           `json:"queue"`
	Version    uint32           `json:"version"`
	CreateTime string           `json:"create_time"`
	Versions   []uint32         `json:"versions"` // that are kept
	Types      []typeSchemaView `json:"types"`
	Files      []string         `json:"files"`
}

type typeSchemaView struct {
	Type     int64  `json:"type"`
	TypeName string `json:"type_name,omitempty"`
	Message  string `json:"message"`
	Validate bool   `json:"validate"`
}

func viewTypeSchemas(types []client.TypeSchema, names map[int64]string) []typeSchemaView {
	all := make([]typeSchemaView, len(types))
	for i, t := range types {
		all[i] = typeSchemaView{t.Type, names[t.Type], t.Message, t.Validate}
	}
	return all
}

func newSchemaShow(a *app) *cobra.Command {
	var version uint32
	var output string
	cmd := &cobra.Command{
		Use:   "show QUEUE",
		Short: "Show a queue's schema",
		Long: `Show a version of a queue's schema: which types are which messages and, with -o proto, what those are made of, for
people to read; comments and options that say nothing about bodies are left out. -o descriptor is the descriptor set itself,
for protoc --descriptor_set_in and the like.`,
		Example: `  ipcctl schema show /orders
  ipcctl schema show /orders --version 1 -o proto
  ipcctl schema show /orders -o descriptor > order.binpb`,
		Args: queueArgs(1, 1),
		RunE: a.short(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.showSchema(ctx, queueName(args[0]), version, output)
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	cmd.Flags().VarP(&flagValue[uint32]{target: &version, parse: parseNumber[uint32](1, 1<<32-1), kind: "N"}, "version", "", "this version (default the current one)")
	addOutput(cmd, &output, "text", "json", "yaml", "descriptor", "proto")
	return cmd
}

func (a *app) showSchema(ctx context.Context, name string, version uint32, output string) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	s, versions, err := c.Queue(name).Schema(ctx, version)
	if err != nil {
		return err
	}
	if output == "descriptor" {
		return a.print(string(s.Descriptors))
	}
	set, err := schema.Compile(s.Descriptors)
	if err != nil {
		return err
	}
	if output == "proto" {
		return a.print(protoSource(set))
	}
	info, err := c.GetQueue(ctx, name)
	if err != nil {
		return err
	}
	v := schemaView{
		Queue: name, Version: s.Version, CreateTime: machineTime(s.CreatedAt), Versions: versions,
		Types: viewTypeSchemas(s.Types, typeNamesByNumber(info.Settings.TypeNames)),
	}
	set.Files(func(f protoreflect.FileDescriptor) { v.Files = append(v.Files, f.Path()) })
	slices.Sort(v.Files)
	switch output {
	case "json":
		text, err := marshalJSON(v)
		if err != nil {
			return err
		}
		return a.print(string(text) + "\n")
	case "yaml":
		return outputError(writeYAML(a.out, v))
	}
	return a.print(a.schemaText(&v, s.CreatedAt))
}

// schemaText is a schema for people.
func (a *app) schemaText(v *schemaView, created time.Time) string {
	var b strings.Builder
	kept := make([]string, len(v.Versions))
	for i, n := range v.Versions {
		kept[i] = fmt.Sprint(n)
	}
	head := fmt.Sprintf("%s  version %d  registered %s", escapeLine(v.Queue), v.Version, clock(created, time.Now()))
	b.WriteString(a.bold(head) + "\n")
	fmt.Fprintf(&b, "%s%s\n", indent, a.dim("kept versions: ")+strings.Join(kept, ", "))
	fmt.Fprintf(&b, "%s%s\n", indent, a.dim("files: ")+escapeLine(strings.Join(v.Files, ", ")))
	t := table{headers: true, heading: a.bold, columns: []column{{"TYPE", true}, {"NAME", false}, {"MESSAGE", false}, {"SENDS", false}}}
	for _, of := range v.Types {
		checked := "not checked"
		if of.Validate {
			checked = "validated"
		}
		t.rows = append(t.rows, []string{fmt.Sprint(of.Type), escapeLine(of.TypeName), escapeLine(of.Message), checked})
	}
	for _, line := range t.lines() {
		b.WriteString(line + "\n")
	}
	return b.String()
}
