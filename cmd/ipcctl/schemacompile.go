package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// maxSchemaFile is bytes of a file with a descriptor set: what only a compiler needs of it is left out afterwards.
const maxSchemaFile = 16 << 20

// readDescriptors returns the descriptor set in a file, or that of a .proto file and all that it imports, which is looked for
// in the directories given, or in the file's own.
func readDescriptors(ctx context.Context, file string, imports []string) ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if strings.HasSuffix(file, ".proto") {
		if err := compileProto(ctx, set, file, imports); err != nil {
			return nil, err
		}
	} else if err := readSet(set, file); err != nil {
		return nil, err
	}
	for _, f := range set.GetFile() {
		f.SourceCodeInfo = nil
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(set)
}

func readSet(set *descriptorpb.FileDescriptorSet, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSchemaFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxSchemaFile {
		return fmt.Errorf("%s has more than %d bytes: that is no descriptor set that a queue would take", quoteArg(file), maxSchemaFile)
	}
	if err := proto.Unmarshal(b, set); err != nil {
		return fmt.Errorf("%s is no descriptor set (protoc --descriptor_set_out --include_imports makes one; a file in the protobuf language is called *.proto): %w", quoteArg(file), err)
	}
	return nil
}

func compileProto(ctx context.Context, set *descriptorpb.FileDescriptorSet, file string, imports []string) error {
	if _, err := os.Stat(file); err != nil {
		return err
	}
	if len(imports) == 0 {
		imports = []string{filepath.Dir(file)}
	}
	name, err := importName(file, imports)
	if err != nil {
		return err
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: imports})}
	files, err := compiler.Compile(ctx, name)
	if err != nil {
		return fmt.Errorf("cannot compile: %w", err)
	}
	seen := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protoutil.ProtoFromFileDescriptor(f))
	}
	add(files[0])
	return nil
}

// importName is the name by which other files would import a file.
func importName(file string, imports []string) (string, error) {
	whole, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	for _, dir := range imports {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		if name, err := filepath.Rel(dir, whole); err == nil && filepath.IsLocal(name) {
			return filepath.ToSlash(name), nil
		}
	}
	return "", usagef("%s lies in none of the directories that -I names: name the one that imports are relative to", quoteArg(file))
}
