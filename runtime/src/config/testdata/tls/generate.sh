#!/bin/sh
# Makes the certificates of the TLS tests: ca (with leaf and its key), self (signed by itself, CA:TRUE), other (unrelated).
set -eu
new() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -keyout "$1-key.pem" -out "$1.pem" -subj "/CN=$1" -addext "$2" 2>/dev/null; }
new ca basicConstraints=critical,CA:TRUE
new self basicConstraints=critical,CA:TRUE
new plain basicConstraints=CA:FALSE
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout leaf-key.pem -out leaf.csr -subj /CN=leaf 2>/dev/null
printf 'subjectAltName=DNS:some-other-name\n' > ext
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 36500 -out leaf.pem -extfile ext 2>/dev/null
rm -f leaf.csr ext ca.srl ca-key.pem
