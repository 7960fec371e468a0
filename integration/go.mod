module github.com/xcontainer/xcontainer/integration

go 1.26.8

replace github.com/xcontainer/xcontainer => ../

require (
	github.com/google/go-containerregistry v0.22.1
	golang.org/x/crypto v0.59.0
	golang.org/x/sys v0.50.0
	golang.org/x/term v0.48.0
)

require (
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	github.com/xcontainer/xcontainer v0.0.0
)
