package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/reason"
)

// newSchema makes the family of commands about schemas.
func newSchema(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema",
		Short: "Schemas: say which protobuf messages a queue's bodies are, and let sends be held against that",
		Long: `A queue's schema says which types are which protobuf messages. peek, recv and tap then show bodies decoded,
send --json makes them, and with --validate the daemon refuses sends whose bodies are no such message or have fields
that it does not know. Types that the schema leaves out stay plain bytes.

A schema has versions, of which the last counts and the last 16 are kept. A new one that programs with the version before
could trip over, be it in protobuf's binary form or in JSON, is refused unless that is allowed.`,
		Example: `  ipcctl schema set /orders order.proto --type 7=acme.Order --validate
  ipcctl schema check /orders order.proto --type 7=acme.Order
  ipcctl schema show /orders
  ipcctl schema show /orders --version 1 -o proto
  ipcctl send /orders --json '{"id":"17"}'`,
		Args: func(cmd *cobra.Command, args []string) error {
			names := make([]string, 0, len(cmd.Commands()))
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			if len(args) == 0 {
				return usagef("say what to do: ipcctl schema %s; see ipcctl schema --help", strings.Join(names, "|"))
			}
			return usagef("unknown command %s%s; see ipcctl schema --help", quoteArg("schema "+args[0]), didYouMean(args[0], names))
		},
		RunE:                  func(*cobra.Command, []string) error { return nil }, // Args refuses whatever is no command
		DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(newSchemaSet(a), newSchemaCheck(a), newSchemaShow(a), newSchemaRm(a))
	return cmd
}

// typedMessage is a --type of schema set: what stands before and behind the =.
type typedMessage struct{ typ, message string }

func parseTypedMessage(text string) (typedMessage, error) {
	typ, message, found := strings.Cut(text, "=")
	if !found || typ == "" || message == "" {
		return typedMessage{}, fmt.Errorf("%s: give a type and the full name of a message, such as 7=acme.Order", quoteArg(text))
	}
	return typedMessage{typ, message}, nil
}

type schemaSetOptions struct {
	types    []typedMessage
	imports  []string
	validate bool
	none     bool // --no-validate
	keep     bool // neither is given: each type keeps what it has
	client.SchemaOptions
	output string
}

func (o *schemaSetOptions) add(cmd *cobra.Command, a *app) {
	f := cmd.Flags()
	addList(f, &o.types, "type", "TYPE=MESSAGE", "bodies of TYPE, a number or the queue's name for it, are such a MESSAGE (repeat for more)", parseTypedMessage)
	completeTypes(cmd, a)
	f.BoolVar(&o.validate, "validate", false, "refuse sends of these types whose bodies are no such message (default: as the version before, if any)")
	f.BoolVar(&o.none, "no-validate", false, "take sends of these types whatever their bodies are")
	cmd.MarkFlagsMutuallyExclusive("validate", "no-validate")
	f.VarP(&flagList[string]{target: &o.imports, parse: func(s string) (string, error) { return s, nil }, kind: "DIR"}, "proto-path", "I",
		"where a .proto file's imports are looked for (repeat for more; default its own directory)")
	f.BoolVar(&o.AllowIncompatible, "allow-incompatible", false, "although programs that know the version before could trip over it")
	addOutput(cmd, &o.output, "text", "json")
}

// schemaFileArgs wants a queue and a file.
func schemaFileArgs(cmd *cobra.Command, args []string) error {
	switch len(args) {
	case 0, 1:
		return usagef("name a queue and a file, as in: ipcctl schema %s /orders order.proto --type 7=acme.Order; see %s --help", cmd.Name(), cmd.CommandPath())
	case 2:
		return nil
	}
	return usagef("%s takes one queue and one file, %s is too much; see %s --help", commandName(cmd), quoteArg(args[2]), cmd.CommandPath())
}

// completeSchemaFile completes a queue and then a file.
func (a *app) completeSchemaFile() completer {
	queues := a.completeQueues(1)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return []string{"proto", "pb", "binpb"}, cobra.ShellCompDirectiveFilterFileExt
		}
		return queues(cmd, args, word)
	}
}

func newSchemaSet(a *app) *cobra.Command {
	var o schemaSetOptions
	cmd := &cobra.Command{
		Use:   "set QUEUE FILE --type TYPE=MESSAGE...",
		Short: "Register the next version of a queue's schema",
		Long: `Register the next version of a queue's schema. FILE is a .proto file, which is compiled here, or a descriptor set
(protoc --descriptor_set_out --include_imports). The types that are named, and no others, have a message from then on. Those
whose sends are validated stay so, unless --no-validate; what holds is told. Where the current version is the same nothing changes.

A version that programs with the one before could trip over is refused, and what that is is listed; see schema check.`,
		Example: `  ipcctl schema set /orders order.proto --type 7=acme.Order --validate
  ipcctl schema set /orders -I proto proto/acme/order.proto --type created=acme.Created --type paid=acme.Paid
  ipcctl schema set /orders order.binpb --type 7=acme.Order --allow-incompatible`,
		Args: schemaFileArgs,
		RunE: a.bounded(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			o.keep = !cmd.Flags().Changed("validate") && !o.none
			return a.setSchema(ctx, queueName(args[0]), args[1], &o)
		}),
		ValidArgsFunction: a.completeSchemaFile(),
	}
	o.add(cmd, a)
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only check it, as schema check does")
	return cmd
}

func newSchemaCheck(a *app) *cobra.Command {
	o := schemaSetOptions{SchemaOptions: client.SchemaOptions{DryRun: true}}
	cmd := &cobra.Command{
		Use:   "check QUEUE FILE --type TYPE=MESSAGE...",
		Short: "Tell what a next version of a queue's schema would break",
		Long: `Tell what programs that know the current version of a queue's schema could trip over if the one in FILE were the next:
a line each, and exit 1 if there is anything. Nothing is changed. Of what FILE may be, see schema set.`,
		Example: `  ipcctl schema check /orders order.proto --type 7=acme.Order --validate
  ipcctl schema check /orders order.proto --type 7=acme.Order -o json`,
		Args: schemaFileArgs,
		RunE: a.bounded(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			o.keep = !cmd.Flags().Changed("validate") && !o.none
			return a.setSchema(ctx, queueName(args[0]), args[1], &o)
		}),
		ValidArgsFunction: a.completeSchemaFile(),
	}
	o.add(cmd, a)
	return cmd
}

// setSchema registers a schema, or checks it.
func (a *app) setSchema(ctx context.Context, name, file string, o *schemaSetOptions) error {
	if len(o.types) == 0 {
		return usagef("say which type is which message, as in --type 7=acme.Order")
	}
	c, err := a.dial()
	if err != nil {
		return err
	}
	descriptors, err := readDescriptors(ctx, file, o.imports)
	if err != nil {
		return err
	}
	q := c.Queue(name)
	validated := map[int64]bool{}
	if o.keep {
		now, _, err := q.Schema(ctx, 0)
		if err != nil && !errors.Is(err, client.ErrSchemaNotFound) {
			return err
		}
		for _, t := range now.Types {
			validated[t.Type] = t.Validate
		}
	}
	var types []client.TypeSchema
	for _, t := range o.types {
		typ, err := resolveType(ctx, c, name, t.typ)
		if err != nil {
			return err
		}
		types = append(types, client.TypeSchema{Type: typ, Message: t.message, Validate: o.validate || validated[typ]})
	}
	made, err := q.RegisterSchema(ctx, descriptors, types, o.SchemaOptions)
	if errors.Is(err, client.ErrSchemaIncompatible) {
		if dry, dryErr := q.RegisterSchema(ctx, descriptors, types, client.SchemaOptions{DryRun: true}); dryErr == nil {
			for _, found := range dry.Incompatibilities {
				a.say("%s", escapeLine(found))
			}
		}
	}
	if err != nil {
		return err
	}
	return a.showRegistration(name, made, o, checkedText(o.types, types))
}

// checkedText says of which types sends are held against the schema. The types are called what the user called them.
func checkedText(words []typedMessage, types []client.TypeSchema) string {
	var checked, others []string
	for i, t := range types {
		if t.Validate {
			checked = append(checked, words[i].typ)
		} else {
			others = append(others, words[i].typ)
		}
	}
	var parts []string
	if len(checked) > 0 {
		parts = append(parts, "sends of "+strings.Join(checked, ", ")+" are validated")
	}
	if len(others) > 0 {
		parts = append(parts, "sends of "+strings.Join(others, ", ")+" are not checked")
	}
	return escapeLine(strings.Join(parts, ", "))
}

// registrationView is what came of schema set and schema check, as json shows it.
type registrationView struct {
	Queue             string           `json:"queue"`
	Version           uint32           `json:"version"`
	Created           bool             `json:"created"` // in a check: it would be
	Types             []typeSchemaView `json:"types"`
	Incompatibilities []string         `json:"incompatibilities"`
}

func (a *app) showRegistration(name string, made client.SchemaRegistration, o *schemaSetOptions, checked string) error {
	found := made.Incompatibilities
	if o.output == "json" {
		v := registrationView{Queue: name, Version: made.Schema.Version, Created: made.Created, Types: viewTypeSchemas(made.Schema.Types, nil), Incompatibilities: append([]string{}, found...)}
		text, err := marshalJSON(v)
		if err == nil {
			err = a.print(string(text) + "\n")
		}
		if err != nil {
			return err
		}
	}
	switch {
	case o.DryRun && o.output == "text":
		for _, f := range found {
			if err := a.print(escapeLine(f) + "\n"); err != nil {
				return err
			}
		}
		switch {
		case !made.Created:
			a.say("it is version %d of %s: %s", made.Schema.Version, name, checked)
		case len(found) == 0 && made.Schema.Version > 0:
			a.say("programs that know version %d of %s get along with it; with it %s", made.Schema.Version, name, checked)
		case len(found) == 0:
			a.say("%s has no schema yet, so there is nothing that it could break; with this one %s", name, checked)
		default:
			a.say("with it %s", checked)
		}
	case o.output == "text" && made.Created:
		for _, f := range found {
			a.say("allowed: %s", escapeLine(f))
		}
		a.say("version %d of the schema of %s is registered: %s", made.Schema.Version, name, checked)
	case o.output == "text":
		a.say("version %d of the schema of %s is the same: nothing changed, %s", made.Schema.Version, name, checked)
	}
	if o.DryRun && len(found) > 0 && !o.AllowIncompatible {
		return reported(reason.SchemaIncompatible.Lookup().Exit)
	}
	return nil
}

func newSchemaRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm QUEUE",
		Short: "Remove a queue's schema, all versions of it",
		Long: `Remove a queue's schema, all versions of it: bodies are plain bytes again, and no send is held against anything. On a
terminal it asks first; elsewhere it needs --force.`,
		Example: `  ipcctl schema rm /orders
  ipcctl schema rm /orders --force`,
		Args: queueArgs(1, 1),
		RunE: a.long(func(ctx context.Context, _ *cobra.Command, args []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			name := queueName(args[0])
			if err := a.confirm(ctx, force, "remove the schema of "+escapeLine(name)); err != nil {
				return err
			}
			if err := c.Queue(name).RemoveSchema(ctx); err != nil {
				return err
			}
			a.say("removed the schema of %s", escapeLine(name))
			return nil
		}),
		ValidArgsFunction: a.completeQueues(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}
