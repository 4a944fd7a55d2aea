package queue

// Schema is a version of what the bodies of a queue's messages are made of. It is never changed in place.
type Schema struct {
	Version     uint32
	CreatedAt   int64  // wall time, ns since 1970
	Descriptors []byte // a serialized google.protobuf.FileDescriptorSet
	Types       []TypeSchema
}

// TypeSchema says what the bodies of one type are.
type TypeSchema struct {
	Type     int64
	Message  string // full name of a protobuf message in the descriptors
	Validate bool   // sends of other bodies are refused
}
