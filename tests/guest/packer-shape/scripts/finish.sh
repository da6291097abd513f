#!/bin/sh
set -eu
sync
