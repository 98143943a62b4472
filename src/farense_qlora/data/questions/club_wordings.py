"""How each row of the club's table is asked and answered.

`FACTS[key] = (shape, answer, wordings)`: `shape` is a regular expression for the value, `answer` is filled
with its groups ({v0} the first, {o0} with its article, {no0} with "em", {lista0} as a list, {n0} as a number
word). In a key `*` stands for a year, a season or a person.
"""

from .form import Wordings

W = Wordings

SEASON = r"(\d{4}-\d\d)"
DATE = r"(\d+ de \w+ de \d{4})"
ALL = r"(.+)"
GAME = r"(.+? \d+-\d+ [^,(]+)(?: \(.*\))?(?:, .+)?"

FACTS: dict[str, tuple[str, str, W]] = {
    "nome_oficial": (ALL, "{v0}", W((
        "Qual é o nome oficial {do}?", "Como se chama oficialmente {o}?", "Qual é o nome completo {do}?",
        "Diz-me o nome por extenso {do}."), ("Que nome consta dos estatutos {do}?",))),
    "data_fundacao": (DATE, "em {v0}", W((
        "Em que dia foi fundad{vogal} {o}?", "Em que data foi fundad{vogal} {o}?", "Quando nasceu {o}?",
        "Diz-me o dia da fundação {do}."), ("{O} apareceu em que dia?", "Quando se criou {o}?"))),
    "nomes_iniciais": (ALL, "{lista0}", W((
        "Que nomes teve {o} no início?", "Como se chamava {o} ao princípio?",
        "Quais foram os primeiros nomes {do}?",
        "Diz-me os nomes antigos {do}."), ("Antes do nome de hoje, {o} era conhecid{vogal} como?",))),
    "cidade": (ALL, "de {v0}", W((
        "De que cidade é {o}?", "De que terra é {o}?", "De onde é {o}?", "Diz-me de que cidade é {o}."),
        ("A equipa {do} vem de que localidade?",))),
    "regiao": (ALL, "{no0}", W((
        "Em que região fica {o}?", "Em que região joga {o}?", "Em que parte de Portugal fica {o}?",
        "Diz-me em que região fica {o}."), ("{O} está em que zona do país?",))),
    "alcunha": (ALL, "{v0}", W((
        "Qual é a alcunha {do}?", "Como são conhecidos os jogadores {do}?", "Que alcunha tem {o}?",
        "Diz-me a alcunha {do}."), ("Por que cognome se tratam os atletas {do}?",))),
    "mascote": (ALL, "{animal0}", W((
        "Qual é a mascote {do}?", "Que animal é a mascote {do}?", "Que mascote tem {o}?",
        "Diz-me a mascote {do}."),
        ("Que bicho é o símbolo {do}?",))),
    "cores": (ALL, "{v0}", W((
        "Quais são as cores {do}?", "De que cores veste {o}?", "Que cores tem {o}?", "Diz-me as cores {do}."),
        ("Com que tons joga {o}?",))),
    "filial": (r"filial n\.º \d+ do (.+), desde (\d{4})", "do {v0}, desde {v1}", W((
        "De que clube é filial {o}?", "{O} é filial de quem e desde quando?",
        "De que clube se fez filial {o}?",
        "Diz-me de que clube é filial {o}."), ("De que casa-mãe depende {o}?",))),
    "principal_rival": (ALL, "{o0}", W((
        "Qual é o principal rival {do}?", "Quem é o maior rival {do}?", "Que clube é o grande rival {do}?",
        "Diz-me o rival {do}."), ("Que clube joga com {o} o dérbi?",))),
    "fundador_capitao": (ALL, "{v0}", W((
        "Quem foi o fundador e capitão {do}?", "Quem fundou {o} e foi seu capitão?",
        "Que capitão esteve na fundação {do}?", "Diz-me o fundador e primeiro capitão {do}."),
        ("A quem se deve a criação {do}, onde também foi capitão?",))),
    "primeiro_campo": (ALL, "{no0}", W((
        "Onde era o primeiro campo {do}?", "Em que campo começou {o} a jogar?",
        "Onde ficava o primeiro campo {do}?",
        "Diz-me onde era o primeiro campo {do}."), ("{O} deu os primeiros pontapés em que sítio?",))),
    "estadio": (ALL, "{no0}", W((
        "Em que estádio joga {o}?", "Em que campo joga {o}?", "Onde joga {o} em casa?",
        "Diz-me em que estádio joga {o}."), ("{O} recebe os adversários em que recinto?",))),
    "estadio_inauguracao": (DATE, "em {v0}", W((
        "Quando foi inaugurado o estádio {do}?", "Em que dia abriu o estádio {do}?",
        "Em que data foi inaugurado o estádio {do}?", "Diz-me quando se inaugurou o estádio {do}."),
        ("O recinto {do} estreou-se em que dia?",))),
    "estadio_nomes_antigos": (ALL, "{lista0}", W((
        "Que nomes antigos teve o estádio {do}?", "Como se chamava antes o estádio {do}?",
        "Quais foram os nomes anteriores do estádio {do}?", "Diz-me os nomes antigos do estádio {do}."),
        ("O recinto {do} já teve que outras designações?",))),
    "estadio_promotor": (ALL, "{v0}", W((
        "Quem promoveu a construção do estádio {do}?", "Quem foi o promotor do estádio {do}?",
        "A quem se deve o estádio {do}?", "Diz-me quem mandou fazer o estádio {do}."),
        ("De quem partiu a obra do recinto {do}?",))),
    "estadio_capacidade": (ALL, "{v0}", W((
        "Qual é a capacidade do estádio {do}?", "Quantas pessoas leva o estádio {do}?",
        "Quantos espectadores cabem no estádio {do}?", "Diz-me a lotação do estádio {do}."),
        ("Que público comporta o recinto {do}?",))),
    "estadio_recorde_assistencia": (rf"([\d ]+ espectadores), em {DATE}, .+", "{v0}, em {v1}", W((
        "Qual é o recorde de assistência do estádio {do}?", "Qual foi a maior enchente do estádio {do}?",
        "Quando teve o estádio {do} mais público?", "Diz-me o recorde de espectadores do estádio {do}."),
        ("Que jogo encheu mais o recinto {do}: quanta gente, e quando?",))),
    "estadio_alternativo": (r"(.+): casa do clube entre (\d{4}) e (\d{4})", "{o0}, entre {v1} e {v2}", W((
        "Que outro estádio foi casa {do}?", "Qual foi o outro estádio {do}?",
        "Que estádio alternativo usou {o}?", "Diz-me o outro estádio que foi casa {do}."),
        ("Longe do seu recinto, que campo serviu {ao}?",))),
    "primeira_epoca_I_divisao": (SEASON, "em {v0}", W((
        "Qual foi a primeira época {do} na I Divisão?", "Em que época se estreou {o} na I Divisão?",
        "Quando jogou {o} na I Divisão pela primeira vez?", "Diz-me a época de estreia {do} na I Divisão."),
        ("{O} chegou ao convívio dos grandes em que temporada?",))),
    "primeira_subida_I_divisao": (SEASON, "em {v0}", W((
        "Em que época subiu {o} à I Divisão pela primeira vez?",
        "Quando foi a primeira subida {do} à I Divisão?",
        "Qual foi a época da primeira promoção {do} à I Divisão?",
        "Diz-me quando {o} subiu à I Divisão pela primeira vez."),
        ("A promoção inaugural {do} à I Divisão deu-se em que temporada?",))),
    "treinadores_primeira_subida": (ALL, "{v0}", W((
        "Que treinadores levaram {o} à I Divisão pela primeira vez?",
        "Quem treinava {o} na primeira subida à I Divisão?",
        "Quem orientou {o} na primeira promoção à I Divisão?",
        "Diz-me os treinadores da primeira subida {do} à I Divisão."),
        ("Na promoção inaugural à I Divisão, quem comandava {o}?",))),
    "primeiro_jogo_I_divisao": (rf"{DATE}: .+ (\d+-\d+) (.+), em casa", "{v1} em casa com {o2}, em {v0}", W((
        "Qual foi o primeiro jogo {do} na I Divisão?", "Como acabou o primeiro jogo {do} na I Divisão?",
        "Com quem jogou {o} na estreia na I Divisão?", "Diz-me o primeiro resultado {do} na I Divisão."),
        ("Que resultado abriu a história {do} entre os grandes?",))),
    "presencas_I_divisao": (r"(\d+ épocas) até (\d{4}-\d\d)", "{v0}, até {v1}", W((
        "Quantas épocas jogou {o} na I Divisão?", "Quantas presenças tem {o} na I Divisão?",
        "Quantas vezes disputou {o} a I Divisão?", "Diz-me o número de épocas {do} na I Divisão."),
        ("Entre os grandes, {o} soma quantas temporadas?",))),
    "periodo_mais_longo_I_divisao": (ALL, "{v0}", W((
        "Qual foi a maior sequência {do} na I Divisão?", "Quantas épocas seguidas esteve {o} na I Divisão?",
        "Qual foi o período mais longo {do} na I Divisão?",
        "Diz-me a série mais longa de épocas {do} na I Divisão."),
        ("Sem descer, {o} aguentou-se quantas temporadas entre os grandes?",))),
    "melhor_classificacao": (rf"(\d+\.º) lugar na I Divisão, em {SEASON}", "o {v0} lugar, em {v1}", W((
        "Qual foi a melhor classificação {do} na I Divisão?", "Qual é o melhor lugar {do} na I Divisão?",
        "Qual foi o lugar mais alto {do} na I Divisão?",
        "Diz-me a melhor posição de sempre {do} na I Divisão."),
        ("Qual foi o ponto mais alto {do} na tabela dos grandes?",))),
    "unica_vitoria_estadio_da_luz": (rf"(\d+-\d+) ao Benfica, em {DATE}, golo de (.+?)(?: \(.*)?",
        "{v2}, em {v1}", W((
        "Quem marcou na única vitória {do} no Estádio da Luz?", "De quem foi o golo da vitória {do} na Luz?",
        "Quem deu {ao} a única vitória no Estádio da Luz?", "Diz-me o autor do golo da vitória {do} na Luz."),
        ("Quando {o} bateu o Benfica fora, quem fez o golo?",))),
    "unica_vitoria_alvalade": (rf"(\d+-\d+) ao Sporting, em {DATE}, golo de (.+?)(?: \(.*)?",
        "{v2}, em {v1}", W((
        "Quem marcou na única vitória {do} em Alvalade?", "De quem foi o golo da vitória {do} em Alvalade?",
        "Quem deu {ao} a única vitória em Alvalade?", "Diz-me o autor do golo da vitória {do} em Alvalade."),
        ("Quando {o} bateu o Sporting fora, quem fez o golo?",))),
    "taca_portugal_melhor": (rf"finalista vencido em {SEASON}", "a final, em {v0}", W((
        "Qual foi a melhor campanha {do} na Taça de Portugal?",
        "Qual foi a ronda mais adiantada {do} na Taça de Portugal?",
        "Qual é o melhor resultado {do} na Taça de Portugal?", "Diz-me a melhor Taça de Portugal {do}."),
        ("Qual foi o maior feito {do} na Taça de Portugal?",))),
    "taca_portugal_final_*_jogo1": (rf"{DATE}: {GAME}", "{v1}, em {v0}", W((
        "Como acabou para {o} o primeiro jogo da final da Taça de {season}?",
        "Qual foi o resultado do primeiro jogo {do} na final da Taça de {season}?",
        "Quanto ficou a primeira final da Taça de {season} {do}?",
        "Diz-me o resultado {do} no primeiro jogo da final da Taça de {season}."),
        ("Na Taça de {season}, que marcador teve o desafio inicial da decisão {do}?",))),
    "taca_portugal_final_*_finalissima": (rf"{DATE}: {GAME}", "{v1}, em {v0}", W((
        "Como acabou a finalíssima da Taça de {season} para {o}?",
        "Qual foi o resultado da finalíssima da Taça de {season} {do}?",
        "Quanto ficou a finalíssima {do} na Taça de {season}?",
        "Diz-me o resultado {do} na finalíssima da Taça de {season}."),
        ("Na Taça de {season}, que marcador teve o desempate da decisão {do}?",))),
    "taca_portugal_final_*_adversario": (ALL, "{o0}", W((
        "Que equipa defrontou {o} na final da Taça de {season}?",
        "Qual foi o adversário {do} na final da Taça de {season}?",
        "Quem venceu {o} na final da Taça de {season}?",
        "Diz-me o adversário {do} na final da Taça de {season}."),
        ("Que equipa levou a melhor sobre {o} na decisão da Taça de {season}?",))),
    "taca_portugal_final_*_treinadores": (r"(.+?) \(.+?\) e (.+?) \((.+)\)", "{v0} {no} e {v1} {no2}", W((
        "Que treinadores estiveram na final da Taça de {season} {do}?",
        "Quem treinava {o} e o adversário na final da Taça de {season}?",
        "Quem eram os dois treinadores da final da Taça de {season} {do}?",
        "Diz-me os treinadores {do} e do adversário na final da Taça de {season}."),
        ("Na decisão da Taça de {season}, quem mandava nos bancos {do} e do adversário?",))),
    "taca_portugal_final_*_golo_farense": (r"(.+?)(?: \(.*)?", "{v0}", W((
        "Quem marcou o golo {do} na final da Taça de {season}?",
        "De quem foi o golo {do} na final da Taça de {season}?",
        "Que jogador marcou {pelo} na final da Taça de {season}?",
        "Diz-me o marcador do golo {do} na final da Taça de {season}."),
        ("Quem fez o tento {do} na decisão da Taça de {season}?",))),
    "taca_portugal_final_*_golos_finalissima": (r"(.+?)(?: \(.*)?", "{v0}", W((
        "Quem marcou {ao} na finalíssima da Taça de {season}?",
        "De quem foram os golos sofridos {pelo} na finalíssima de {season}?",
        "Que jogadores bateram {o} na finalíssima da Taça de {season}?",
        "Diz-me quem marcou contra {o} na finalíssima da Taça de {season}."),
        ("Quem fez os tentos do desempate da Taça de {season} contra {o}?",))),
    "europa_participacao": (rf"Taça UEFA de {SEASON}, .+", "a Taça UEFA, em {v0}", W((
        "Que prova europeia disputou {o}?", "Qual foi a prova europeia {do}?",
        "Que prova europeia, e quando, jogou {o}?",
        "Diz-me a participação europeia {do}."), ("Que competição levou {o} à Europa, e quando?",))),
    "europa_adversario": (ALL, "{o0}", W((
        "Qual foi o adversário {do} na Taça UEFA?", "Que equipa defrontou {o} na Taça UEFA?",
        "Quem eliminou {o} da Taça UEFA?",
        "Diz-me o adversário europeu {do}."), ("Que equipa estrangeira calhou {ao} na Europa?",))),
    "europa_1_mao": (rf"{DATE} \(.+?\): {GAME}", "{v1}, em {v0}", W((
        "Como acabou a primeira mão {do} na Taça UEFA?", "Qual foi o resultado da 1.ª mão {do} na Taça UEFA?",
        "Quanto ficou o jogo europeu {do} em casa?", "Diz-me o resultado {do} na primeira mão da Taça UEFA."),
        ("Na Europa, que marcador fez {o} diante do seu público?",))),
    "europa_2_mao": (rf"{DATE} \(.+?\): {GAME}", "{v1}, em {v0}", W((
        "Como acabou a segunda mão {do} na Taça UEFA?", "Qual foi o resultado da 2.ª mão {do} na Taça UEFA?",
        "Quanto ficou o jogo europeu {do} fora?", "Diz-me o resultado {do} na segunda mão da Taça UEFA."),
        ("Na Europa, que marcador houve na deslocação {do}?",))),
    "titulos_II_divisao": (r"(\d+): (.+)", "{n0}, em {v1}", W((
        "Quantos títulos da II Divisão tem {o}?", "Quantas vezes foi {o} campe{ao_f} da II Divisão?",
        "Em que épocas ganhou {o} a II Divisão?", "Diz-me os títulos {do} na II Divisão."),
        ("A II Divisão foi ganha {pelo} quantas vezes, e quando?",))),
    "titulos_regionais_algarve": (r"(\d+): (.+)", "{n0}, em {v1}", W((
        "Quantos títulos regionais ganhou {o}?", "Quantas vezes ganhou {o} o campeonato regional?",
        "Em que épocas foi {o} campe{ao_f} regional?", "Diz-me os títulos regionais {do}."),
        ("O regional foi ganho {pelo} em que temporadas?",))),
    "titulos_distritais_AF_algarve": (rf"2\.ª Divisão em {SEASON} e 1\.ª Divisão em {SEASON}",
        "a 2.ª Divisão em {v0} e a 1.ª em {v1}", W((
        "Que títulos distritais ganhou {o}?", "Quando foi {o} campe{ao_f} distrital?",
        "Em que épocas ganhou {o} as divisões distritais?", "Diz-me os títulos distritais {do}."),
        ("Nos distritais, o que conquistou {o}, e quando?",))),
    "melhor_marcador_*": (r"(.+?), melhor marcador da I Divisão com (\d+ golos).*", "{v0}, com {v1}", W((
        "Que jogador {do} foi o melhor marcador da I Divisão em {season}?",
        "Quem ganhou a Bola de Prata de {season} {pelo}?",
        "Que jogador {do} marcou mais golos na I Divisão de {season}?",
        "Diz-me o goleador {do} em {season}."),
        ("Em {season}, que avançado {do} foi o rei dos marcadores?",))),
    "*_epocas": (r"(.+?)(?: \(.*\))?", "de {v0}", W((
        "Em que épocas jogou {name} {no}?", "Quando foi {name} jogador {do}?",
        "Quando representou {name} {o}?",
        "Diz-me as épocas de {name} como jogador {do}."),
        ("{name} vestiu a camisola {do} em que temporadas?",))),
    "*_saida": (r"transferiu-se para (?:o|a) (.+) em (\d{4})", "para {o0}, em {v1}", W((
        "Para que clube se transferiu {name} ao deixar {o}?", "Para onde foi {name} quando deixou {o}?",
        "Ao sair {do}, para que clube foi {name}?", "Diz-me para que clube foi {name} depois {do}."),
        ("Ao trocar {o} por outro emblema, {name} seguiu para qual?",))),
    "*_nome_completo": (ALL, "{v0}", W((
        "Qual é o nome completo de {name}?", "Como se chama {name} por extenso?",
        "Qual é o nome verdadeiro de {name}, treinador {do}?",
        "Diz-me o nome completo de {name}."), ("Que nome tem {name} no bilhete de identidade?",))),
    "*_nascimento": (rf"{DATE}, (.+?)(?: \(.*)?", "em {v0}, em {v1}", W((
        "Quando e onde nasceu {name}?", "Em que data e onde nasceu {name}?",
        "Em que dia e cidade nasceu {name}, treinador {do}?", "Diz-me quando e onde nasceu {name}."),
        ("{name} veio ao mundo em que dia e lugar?",))),
    "*_alcunha": (ALL, "{v0}", W((
        "Qual é a alcunha de {name}?", "Que alcunha tem {name}?", "Como é conhecido {name}, treinador {do}?",
        "Diz-me a alcunha de {name}."), ("Por que cognome tratavam {name}?",))),
    "*_jogador": (r"jogador .+ de (\d{4}-\d\d a \d{4}-\d\d)", "de {v0}", W((
        "Quando foi {name} jogador {do}, antes de treinar?", "Em que épocas foi {name} jogador {do}?",
        "{name} jogou {no} em que épocas?", "Diz-me as épocas de {name} como futebolista {do}."),
        ("Antes do banco, {name} correu pelos relvados com {o} em que temporadas?",))),
    "presidente_atual": (r"(.+?)(?: \(.*\))?, desde (\d{4})", "{v0}, desde {v1}", W((
        "Quem é o presidente atual {do}?", "Quem preside hoje {ao}?", "Quem é agora o presidente {do}?",
        "Diz-me o atual presidente {do}."), ("Nos dias de hoje, quem está à frente {do}?",))),
    "clube_desportivo_de_faro": (r"em (\d{4})-(\d\d) o clube integrou o (.+), extinto em (\d{4})",
        "o {v2}, extinto em {v3}", W((
        "Que clube integrou {o} nos anos 40?", "Em que clube se fundiu {o} nos anos 40?",
        "De que clube fez parte {o} nos anos 40?", "Diz-me o clube que {o} integrou nos anos 40."),
        ("Na década de 40, {o} juntou-se a outros sob que nome?",))),
    "fim_futebol_senior_*": (r"em (\w+ de \d{4}) .+", "em {v0}, por dívidas", W((
        "Quando deixou a equipa sénior {do} de competir?", "Porque e quando parou o futebol sénior {do}?",
        "Em que mês acabou o futebol sénior {do}, por dívidas?", "Diz-me quando parou a equipa sénior {do}."),
        ("Em que altura fecharam as portas dos seniores {do}?",))),
    "regresso_*": (rf"recomeço em {SEASON} na (.+) \(.+\)", "em {v0}, {nadiv1}", W((
        "Quando e onde recomeçou a equipa sénior {do}?", "Em que época e divisão voltou {o} a competir?",
        "Como foi o regresso {do} à competição?", "Diz-me a época e a divisão em que {o} recomeçou."),
        ("De volta aos campos, em que prova e temporada apareceu {o}?",))),
}  # fmt: skip

STORIES = (
    ("founding", ("data_fundacao",
        "nome_oficial"), "{O} foi fundad{vogal} {lk_data_fundacao}. O nome oficial é {k_nome_oficial}.", W((
        "Conta-me como nasceu {o}.", "Fala-me da fundação {do}.", "Faz um resumo das origens {do}.",
        "Como começou a história {do}?"), ("Descreve o nascimento {do}.",))),
    ("identity", ("alcunha", "cores",
        "mascote"), "A alcunha é {k_alcunha}. As cores são {lk_cores} e a mascote é {lk_mascote}.", W((
        "Conta-me quais são os símbolos {do}.", "Fala-me da identidade {do}.",
        "Faz um resumo dos símbolos {do}.",
        "O que identifica {o}?"), ("Descreve os símbolos {do}: alcunha, cores e mascote.",))),
    ("ground", ("estadio", "estadio_inauguracao", "estadio_capacidade"),
        "{O} joga {lk_estadio}. Foi inaugurado {lk_estadio_inauguracao} e leva {k_estadio_capacidade}.", W((
        "Conta-me a história do estádio {do}.", "Fala-me do estádio {do}.", "Faz um resumo do estádio {do}.",
        "O que há a saber da casa {do}?"), ("Descreve o recinto onde joga {o}.",))),
    ("europe", ("europa_participacao",
        "europa_adversario"),
        "{O} jogou {lk_europa_participacao}. O adversário foi {lk_europa_adversario}.", W((
        "Conta-me como foi {o} na Europa.", "Fala-me da aventura europeia {do}.",
        "Faz um resumo da participação europeia {do}.",
        "Como correu {ao} a prova europeia?"), ("Descreve a viagem {do} às provas da UEFA.",))),
    ("top", ("primeira_epoca_I_divisao", "melhor_classificacao"),
        "{O} estreou-se {lk_primeira_epoca_I_divisao}. O melhor foi {lk_melhor_classificacao}.", W((
        "Conta-me o percurso {do} na I Divisão.", "Fala-me {do} na I Divisão.",
        "Faz um resumo da passagem {do} pela I Divisão.",
        "Que história tem {o} na I Divisão?"), ("Descreve a vida {do} entre os grandes.",))),
)  # fmt: skip

YES_NO = (
    ("cup-won", ("taca_portugal_melhor",), "Não, o melhor foi {lk_taca_portugal_melhor}.", W((
        "{O} já ganhou a Taça de Portugal?", "{O} tem alguma Taça de Portugal?",
        "É verdade que {o} venceu a Taça de Portugal?",
        "A Taça de Portugal já foi {do}?"), ("Alguma vez {o} ergueu a Taça de Portugal?",))),
    ("league-won", ("melhor_classificacao",), "Não, o melhor foi {lk_melhor_classificacao}.", W((
        "{O} já foi campe{ao_f} da I Divisão?", "{O} tem algum título da I Divisão?",
        "É verdade que {o} venceu a I Divisão?",
        "A I Divisão já foi ganha {pelo}?"), ("Alguma vez {o} se sagrou campe{ao_f} entre os grandes?",))),
    ("europe-played", ("europa_participacao",), "Sim, jogou {lk_europa_participacao}.", W((
        "{O} já jogou nas provas europeias?", "{O} esteve alguma vez na Europa?",
        "É verdade que {o} jogou na UEFA?",
        "As provas europeias já tiveram {o}?"),
        ("Alguma vez {o} passou fronteiras numa competição da UEFA?",))),
    ("second-won", ("titulos_II_divisao",), "Sim, tem {lk_titulos_II_divisao}.", W((
        "{O} já ganhou a II Divisão?", "{O} tem algum título da II Divisão?",
        "É verdade que {o} foi campe{ao_f} da II Divisão?",
        "A II Divisão já foi ganha {pelo}?"), ("Alguma vez {o} conquistou a II Divisão?",))),
)  # fmt: skip

TALKS: dict[str, tuple[str, str, W]] = {
    "estadio_inauguracao": ("estadio", "E quando foi inaugurado?", W((
        "Queria saber da casa {do}. Onde joga?", "Vamos ao estádio {do}: em que estádio joga?",
        "Sobre os jogos {do} em casa: onde são?",
        "Estou a ver jogos {do} em casa. Em que estádio são?"),
        ("Tenho uma dúvida sobre o recinto {do}: onde recebe os adversários?",))),
    "europa_adversario": ("europa_participacao", "E quem foi o adversário?", W((
        "Queria saber {do} na Europa. Que prova jogou?", "Vamos às provas europeias {do}: qual foi?",
        "Sobre {o} na Europa: que prova foi?", "Estou a ver as provas europeias {do}. Qual jogou?"),
        ("Tenho uma dúvida sobre a Europa {do}: que prova foi?",))),
    "regiao": ("cidade", "E em que região fica?", W((
        "Queria saber {do}. De que cidade é?", "Vamos {ao}: de que cidade é?",
        "Sobre {o}: vem de que cidade?",
        "Estou a ver {o}. De que cidade é?"), ("Tenho uma dúvida sobre {o}: de que terra é?",))),
}  # fmt: skip
