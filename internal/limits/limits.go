// Package limits holds every limit and default of ipcd, each in one place.
package limits

import "time"

// Names.
const (
	NameLength = 200 // characters of a queue's name after the slash
)

// Messages.
const (
	MessageSizeDefault  = 64 << 10 // bytes of a body, unless the queue says otherwise
	MessageSizeMax      = 16 << 20 // bytes of a body that a queue may allow
	PriorityMax         = 32767    // as MQ_PRIO_MAX - 1, see mq_overview(7)
	Headers             = 64       // headers of a message
	DeadHeaders         = 5        // that a dead letter has besides
	DeadHeaderBytes     = 4 << 10  // bytes of their names and values, where it is imported
	HeaderKeyLength     = 256      // bytes of a header's name
	HeaderBytes         = 64 << 10 // bytes of all names and values of a message's headers
	IDLength            = 256      // bytes of a dedup id, correlation id, content type or producer id
	ReasonLength        = 256      // bytes of the reason of a nack or a bury
	BatchMessages       = 16384    // messages of a batch
	BatchBytes          = 24 << 20 // bytes of bodies, headers and ids of a batch
	ReceiveMessages     = 16384    // messages a receive may ask for
	ReceiveBytes        = 24 << 20 // bytes of bodies, headers and ids a receive hands out, unless one message is larger
	SettlementsPerFrame = 65536    // settlements of one request or frame
	SelectorTypes       = 1024     // types of a set in a selector
)

// Times.
const (
	LeaseDefault = 30 * time.Second
	LeaseMin     = 10 * time.Millisecond
	LeaseMax     = 7 * 24 * time.Hour
	DelayMax     = 366 * 24 * time.Hour // of delays, back-offs and TTLs
	WaitMax      = 24 * time.Hour       // of a receive or a blocked send
)

// Queues.
const (
	Queues               = 65536
	QueueMessagesDefault = 1_000_000
	QueueMessagesMax     = 1_000_000_000
	QueueBytesDefault    = 1 << 30
	QueueBytesMax        = 1 << 40
	MaxAttemptsDefault   = 16
	MaxAttemptsMax       = 65535
	DedupWindowDefault   = 2 * time.Minute
	DedupWindowMax       = 7 * 24 * time.Hour
	DedupIDsDefault      = 1_000_000
	DedupIDsMax          = 100_000_000
	TypeNames            = 1024 // names for types of a queue
	TypeNameLength       = 64
	WaitingReceivers     = 10_000   // receives and streams waiting at a queue
	BlockedSenders       = 10_000   // senders waiting for room in a queue
	BlockedBytes         = 64 << 20 // bytes of their messages
	Producers            = 65536    // producers a queue remembers
	ProducerDuplicates   = 1 << 20  // duplicates in the answers remembered for them
	ProducerBatches      = 256      // batches remembered of each
	ProducerBatchesMin   = 32       // where the queue remembers too many of all producers
	ProducerAnswers      = 1 << 20  // batches of all producers, before each keeps fewer
	ProducerWindow       = 2 * time.Minute
	ModeDefault          = 0o600
	DeadLetterDepth      = 16       // dead-letter queues behind each other
	Binds                = 64       // binds of a queue
	BindLooks            = 65536    // looks at whether a message of one send is to be copied by one bind
	BindTargets          = 256      // queues that one send may reach
	ReceiveQueues        = 256      // queues of one receive
	Taps                 = 64       // of a queue
	TapMessages          = 4096     // messages that wait for a tap's reader; those beyond are skipped
	TapBytes             = 8 << 20  // bytes of their bodies, headers and ids
	TapBytesOfOne        = 64 << 20 // the same of all taps of one identity
	MoveMessages         = 256      // messages moved in one atomic step
	MoveBytes            = 1 << 20  // bytes of them, unless one message is larger
	RedriveQueues        = 4096     // queues that dead letters of one queue go back to in one call
	ImportReasonLength   = 640      // bytes of why an imported message is buried; the rest is cut
	TemporaryPrefix      = "/tmp."  // of the names of temporary queues, which no other queue may have
	TemporaryMode        = 0o622    // who knows the name may send
	SchemaBytes          = 1 << 20  // of a descriptor set
	SchemaFindings       = 100      // incompatibilities of a version that are told
	SchemaJSONParts      = 1 << 18  // messages within one that is shown as JSON
	SchemaNameLength     = 1024     // bytes of the full name of a message that a type is bound to
	SchemaTypes          = 1024     // types with a message
	SchemaVersions       = 16       // kept of a queue's schema
)

// What descriptor sets and bodies of a schema may cost.
const (
	SchemaFiles     = 1024    // of a descriptor set
	SchemaElements  = 50_000  // messages, fields, enums and the like in a descriptor set
	SchemaNameBytes = 8 << 20 // of all full names in it
	SchemaDepth     = 100     // of messages within each other, in descriptors and bodies; as many readers allow
)

// Transport.
const (
	FrameBytes            = 32 << 20 // a gRPC message
	HeaderListBytes       = 64 << 10 // the headers of a gRPC call
	StreamsPerConn        = 1024     // concurrent calls on a connection
	ConsumeCreditMax      = 1 << 20  // messages of outstanding credit of a Consume stream
	PeekPage              = 256      // messages of one PeekResponse
	PeekPageBytes         = 2 << 20  // bytes of bodies of one PeekResponse, unless one message is larger; gRPC clients take 4 MiB by default
	PeekScan              = 4096     // messages looked at under one hold of a queue's lock
	KeepaliveTime         = 30 * time.Second
	KeepaliveTimeout      = 20 * time.Second
	KeepaliveMinTime      = 10 * time.Second // a client that pings more often is disconnected
	StopTimeoutDefault    = 10 * time.Second // how long a stopping daemon waits for acks
	StopTimeoutMax        = time.Hour
	HandshakeTimeout      = 10 * time.Second
	DescriptorReserve     = 256              // descriptors that doors leave to the rest of the daemon; a quarter of RLIMIT_NOFILE, if less
	AcceptBackoff         = time.Second      // at most, between attempts to accept where descriptors are short
	KernelMessagesDefault = 10               // mq_maxmsg of a door, as the kernel's own default
	KernelRetry           = 10 * time.Second // between attempts to open a kernel door that could not be opened
	KernelRecordBytes     = 32 << 20         // the file that records which kernel queues are ours
	Conns                 = 8192             // gRPC connections of all identities but admins
	ConnsRefused          = 64               // of those that are over a quota, how many are kept to be told so
	ConnRefusedTime       = time.Second      // how long
	TLSHandshakes         = 256              // under way; for one more the oldest is given up
	TLSFileBytes          = 1 << 20          // a file of certificates, or of a key
	CertificateNameLength = 1024             // bytes of a certificate's name
	CertificateRecheck    = time.Minute      // between looks whether the peer's certificate has expired
	RequestTimeout        = time.Minute      // for the request of a call that has but one to come in; then its connection is closed
	IncomingBytes         = 256 << 20        // bytes of memory of what comes in for an identity and no handler has taken
	IncomingBytesAdmin    = 512 << 20        // for an admin
	IncomingBytesAll      = 1 << 30          // for all
	UserAgentLength       = 256              // bytes of what a client calls itself, of which the rest is not kept
)

// The journal and memory.
const (
	SegmentBytes         = 32 << 20  // of a file of the journal: the largest batch fits
	SegmentBytesMin      = 256 << 10 // for tests: large batches do not fit
	PayloadMemoryDefault = 256 << 20 // bytes of payloads in memory
	KeepFreeDefault      = 256 << 20 // bytes of the file system that the journal leaves free
)

// Rings.
const (
	Rings                = 1024
	RingLanes            = 64 // of a ring, those whose producers have left included
	RingConsumers        = 64 // of a ring: futex_waitv(2) takes 128 words
	RingCapacityMin      = 64 << 10
	RingCapacityDefault  = 32 << 20
	RingCapacityMax      = 1 << 30
	RingStallDefault     = time.Second // how long a consumer may hold a producer up, added up over RingStallWindow
	RingStallMin         = 10 * time.Millisecond
	RingStallMax         = 10 * time.Second
	RingStallWindow      = 10 * time.Second
	RingMemoryDefault    = 1 << 30   // bytes of all lanes and consumers' pages
	RingMemoryUIDDefault = 512 << 20 // of those that one uid attached
	RingMembersPerUID    = 256       // producers and consumers that one uid has attached, in all rings
	RingRetainMax        = 16 << 30  // bytes of lanes that are kept although their producers have left
	RingAdoptWindow      = 3 * time.Second
	RingPublishMessages  = 16384
	RingStored           = 500 // lanes that the service manager keeps over a restart: below FileDescriptorStoreMax= of the unit
	RingStoredPerUID     = 128
	RingShare            = 32 // lanes, and consumers, of a ring that one uid may take, unless it is the owner's, root's or the daemon's
)

// The socket at which rings are attached to.
const (
	AttachConns        = 4096 // connections
	AttachConnsPerUID  = 512
	AttachFilesPerUID  = 256              // descriptors sent to a uid's processes and not yet taken
	AttachHelloTimeout = 10 * time.Second // from connecting to ATTACH or ADOPT
	AttachReadyTimeout = time.Minute      // from MEMORY to READY: it may be a GiB that is populated
	AttachGotTimeout   = 5 * time.Second  // from a reply with descriptors to GOT, and for a reply to be taken
)

// NoID is the uid and the gid that stand for none: (uid_t)-1, see chown(2).
const NoID = 1<<32 - 1

// Quotas of each identity, unless the configuration or an operator says otherwise.
const (
	QuotaQueues      = 1024
	QuotaRings       = 64
	QuotaQueuedBytes = 16 << 30
	QuotaConnections = 512
	QuotaStreams     = 1024 // each may hold a frame of FrameBytes while it comes in
	QuotaReceivers   = 1024
	QuotaOperatorMin = 16 // connections, and calls under way, that root and the daemon's user have at least
)

// The HTTP address for operators.
const (
	HTTPConns         = 64 // for one more the one goes that has asked nothing for longest
	HTTPHeaderBytes   = 16 << 10
	HTTPHeaderTimeout = 5 * time.Second  // until a request's header is there
	HTTPIdleTimeout   = 2 * time.Minute  // between requests
	HTTPWriteTimeout  = 30 * time.Second // for an answer to be taken, beside the time that a profile takes
	HealthTimeout     = 5 * time.Second
	ScrapeTimeout     = 10 * time.Second
	ProfileMax        = 5 * time.Minute
	MetricsQueues     = 1000 // queues with series of their own, the oldest; the others are summed
	MetricsRings      = 256
)
