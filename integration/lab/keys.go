// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// makeKeys makes new keys for one run of the lab: the user's in dir/id, the
// public half and the server's key in dir/share, which dom0 mounts. It returns
// the server's public key in authorized_keys form.
func makeKeys(dir string) (hostKey string, err error) {
	_, user, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("lab: make keys: %w", err)
	}
	_, host, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("lab: make keys: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(user, "lab")
	if err != nil {
		return "", fmt.Errorf("lab: make keys: %w", err)
	}
	userPub, err := authorizedKey(user)
	if err != nil {
		return "", err
	}
	if hostKey, err = authorizedKey(host); err != nil {
		return "", err
	}
	share := filepath.Join(dir, "share")
	if err := os.MkdirAll(share, 0o700); err != nil {
		return "", fmt.Errorf("lab: make keys: %w", err)
	}
	for path, data := range map[string][]byte{
		filepath.Join(dir, keyFile):             pem.EncodeToMemory(block),
		filepath.Join(share, "authorized_keys"): []byte(userPub + "\n"),
		filepath.Join(share, "hostkey"):         dropbearKey(host),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return "", fmt.Errorf("lab: make keys: %w", err)
		}
	}
	return hostKey, nil
}

// authorizedKey renders the public half of a key on one line.
func authorizedKey(k ed25519.PrivateKey) (string, error) {
	pub, err := ssh.NewPublicKey(k.Public())
	if err != nil {
		return "", fmt.Errorf("lab: make keys: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))), nil
}

// dropbearKey encodes a private key in dropbear's own format: the type's name
// and the 64 bytes of seed and public key, each after its length (dropbear
// ed25519.c, buf_put_ed25519_priv_key).
func dropbearKey(k ed25519.PrivateKey) []byte {
	var b []byte
	for _, part := range [][]byte{[]byte(ssh.KeyAlgoED25519), k} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}
