# SPDX-License-Identifier: BSD-3-Clause
# Completion of crosvm's command line for bash. Commands and options are asked of crosvm itself, so that they are
# written once.

_crosvm_words()
{
	"$1" help ${2:+"$2"} 2>/dev/null | sed -n "$3"
}

_crosvm()
{
	local cur=${COMP_WORDS[COMP_CWORD]} words=
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		words=$(_crosvm_words "$1" '' 's/^  \([a-z_]\{2,\}\) .*/\1/p')
	elif [ "${COMP_WORDS[1]}" = help ]; then
		[ "$COMP_CWORD" -gt 2 ] || words=$(_crosvm_words "$1" '' 's/^  \([a-z_]\{2,\}\) .*/\1/p')
	elif [ "${cur#-}" != "$cur" ]; then
		words=$(_crosvm_words "$1" "${COMP_WORDS[1]}" 's/^  \(-.,\)\{0,1\} *\(--[a-z_-]*\).*/\2/p')
	elif [ "${COMP_WORDS[1]}" = disk ] && [ "$COMP_CWORD" -eq 2 ]; then
		words=resize
	else
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _crosvm crosvm
