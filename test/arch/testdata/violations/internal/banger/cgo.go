package banger

import "C"
