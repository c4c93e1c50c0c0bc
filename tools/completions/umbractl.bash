# SPDX-License-Identifier: BSD-3-Clause
# bash completion for umbractl

_umbractl_complete() {
	local cur cmd i
	local commands="info stat clone dedupe map owners du health scrub grow trim exec"
	cur=${COMP_WORDS[COMP_CWORD]}
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$cur")
		return
	fi
	cmd=${COMP_WORDS[1]}
	if [[ $cmd == exec ]]; then
		# What follows the options is a command line of its own.
		for ((i = 2; i < COMP_CWORD; i++)); do
			if [[ ${COMP_WORDS[i]} != -* || ${COMP_WORDS[i]} == -- ]]; then
				[[ ${COMP_WORDS[i]} == -- ]] && ((i++))
				if declare -F _command_offset >/dev/null; then
					_command_offset "$i"
				else
					compopt -o default
				fi
				return
			fi
		done
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "-v --verbose --as-xfs --relay --" -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -c -- "$cur")
		fi
		return
	fi
	if [[ $cur == -* ]]; then
		local options
		case $cmd in
		info | stat | dedupe) options="-b --bytes --json --help" ;;
		map) options="-b --bytes --shadows --json --help" ;;
		scrub) options="-w --wait -r --rate --json --help" ;;
		grow) options="--sparse --json --help" ;;
		trim) options="-b --bytes --json --help" ;;
		health) options="-b --bytes --json --help" ;;
		owners) options="--json --help" ;;
		du) options="-b --bytes -c --total -r --recursive --json --help" ;;
		clone) options="-r --recursive -q --quiet --help" ;;
		esac
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
		return
	fi
	compopt -o filenames
	mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _umbractl_complete umbractl
