#!/bin/sh
set -eu
DEBIAN_FRONTEND=noninteractive apt-get -qy install jq
