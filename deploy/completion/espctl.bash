# Completion of espctl for bash: commands, options, files, and paths of the live tree, one component at a time. espctl
# itself says what may come next (espctl complete), within a second, and nothing where no server answers.
#
# Installed where the bash-completion package finds it; it does not need that package: source this file instead.

_espctl() {
  local line=${COMP_LINE:0:COMP_POINT} words current candidates i
  # Bash's own COMP_WORDS are cut at colons, which addresses have.
  read -ra words <<<"$line"
  [[ $line != *[[:space:]] ]] || words+=("")
  current=${words[-1]}
  COMPREPLY=()
  mapfile -t candidates < <("$1" complete "${words[@]:1}" 2>/dev/null </dev/null)
  if [[ ${candidates[0]-} == "<files>" ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    compopt -o filenames 2>/dev/null
    return 0
  fi
  # Paths are what workers made of them: nothing of one is for the shell to run.
  for i in "${!candidates[@]}"; do
    printf -v 'COMPREPLY[i]' %q "${candidates[i]}"
  done
  # Bash replaces what follows the last colon or equals sign.
  COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*[:=]}"}"}")
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *. ]]; then
    compopt -o nospace 2>/dev/null
  fi
  return 0
}

complete -F _espctl espctl
