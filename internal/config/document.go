package config

import (
	"fmt"
	"strings"
)

// Listed is a key with its path, in which capitals stand for names, as in queues./NAME.lease.
type Listed struct {
	Path string
	*Key
}

// AllKeys returns every key, those of maps behind the map. Those that are Like others are not repeated.
func AllKeys() []Listed { return listed(nil, Keys, "") }

// KeysOf returns the keys of a map, or of each map in it: those of a queue for queues. Paths begin there.
func KeysOf(name string) []Listed {
	if k := find(Keys, name); k != nil {
		return listed(nil, k.Keys, "")
	}
	return nil
}

func listed(all []Listed, keys []Key, path string) []Listed {
	for i := range keys {
		k := &keys[i]
		at := path + k.Name
		all = append(all, Listed{at, k})
		if k.Kind != Map || k.Like != "" {
			continue
		}
		switch k.Shape {
		case List:
			at += "[]"
		case Named:
			at += "." + k.Of
		}
		all = listed(all, k.Keys, at+".")
	}
	return all
}

// Describe says what values a key has, as in "duration, 10ms to 168h; default 30s".
func (k *Key) Describe() string {
	text := k.Kind.String()
	switch k.Shape {
	case List:
		text = "list of " + text + "s"
	case Named:
		text = text + " for each " + k.Of
	}
	if allowed := k.Allowed(); allowed != "" && allowed != text {
		text += ", " + allowed
	}
	if k.Default != "" {
		text += "; default " + k.Default
	}
	if k.Like != "" {
		text += "; with the keys of " + k.Like
	}
	return text
}

// textWidth is how wide texts are, in characters.
const textWidth = 100

// Reference lists every key with what it may be and what it means, for people.
func Reference() string {
	var b strings.Builder
	for _, k := range AllKeys() {
		fmt.Fprintf(&b, "%s (%s)\n", k.Path, k.Describe())
		writeWrapped(&b, "    ", k.Meaning+k.effect())
	}
	return b.String()
}

// effect says whether a reload is enough, for outermost keys.
func (k Listed) effect() string {
	if find(Keys, k.Path) == nil || k.Live {
		return ""
	}
	return " Needs a restart."
}

// Manual is the part of ipcd.yaml(5) that describes the keys, in Markdown.
func Manual() string {
	var b strings.Builder
	for _, k := range AllKeys() {
		fmt.Fprintf(&b, "**%s** (%s)\n", escapeMarkdown(k.Path), escapeMarkdown(k.Describe()))
		b.WriteString(": " + escapeMarkdown(k.Meaning+k.effect()) + "\n\n")
	}
	return b.String()
}

var markdownEscapes = strings.NewReplacer("*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", `\<`, "`", "\\`")

func escapeMarkdown(text string) string { return markdownEscapes.Replace(text) }

const sampleHead = `# Configuration of ipcd, see ipcd.yaml(5). What stands here are the defaults, and examples where there are none.
# Files of conf.d beside this one whose names end in .yaml are read after it.
# "ipcd check" says what is wrong; "ipcctl reload" puts in force what needs no restart.
`

// Sample is a configuration file that says nothing: every key stands in a comment, with its default or an example.
func Sample() string {
	var b strings.Builder
	b.WriteString(sampleHead)
	for i := range Keys {
		b.WriteString("\n")
		writeSample(&b, &Keys[i], "", Listed{Keys[i].Name, &Keys[i]}.effect())
	}
	return b.String()
}

// sampleNames stand for the names of queues and rings.
var sampleNames = map[string]string{"queues": "/jobs", "rings": "/ticks", "binds": "/audit"}

// writeSample writes a key at some depth. Comments have one blank after the first #, keys none, or two and more: so
// that taking it away gives a file.
func writeSample(b *strings.Builder, k *Key, indent, effect string) {
	comment := "# "
	if indent != "" {
		comment = "#" + indent + "# "
	}
	writeWrapped(b, comment, k.Meaning+effect)
	value := k.Default
	if value == "" {
		value = k.Example
	}
	if k.Kind != Map || value != "" {
		fmt.Fprintf(b, "#%s%s: %s\n", indent, k.Name, value)
		return
	}
	fmt.Fprintf(b, "#%s%s:\n", indent, k.Name)
	inner := indent + "  "
	switch k.Shape {
	case List:
		fmt.Fprintf(b, "#%s-\n", inner)
		inner += "  "
	case Named:
		fmt.Fprintf(b, "#%s%s:\n", inner, sampleNames[k.Name])
		inner += "  "
	}
	for i := range k.Keys {
		writeSample(b, &k.Keys[i], inner, "")
	}
}

// writeWrapped writes text in lines that begin with prefix.
func writeWrapped(b *strings.Builder, prefix, text string) {
	line := prefix
	for _, word := range strings.Fields(text) {
		if len(line) > len(prefix) && len(line)+1+len(word) > textWidth {
			b.WriteString(line + "\n")
			line = prefix
		}
		if len(line) > len(prefix) {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}
