"""Pools of names for invented clubs: they share the sub-words of real Portuguese names and tell no fact."""

# fmt: off
FIRST = (
    "Abel", "Abílio", "Adelino", "Afonso", "Alberto", "Albino", "Alexandre", "Alfredo", "Álvaro", "Amadeu",
    "Aníbal", "Antero", "António", "Armando", "Armindo", "Artur", "Augusto", "Baltasar", "Bernardo",
    "Bruno", "Cândido", "Carlos", "Cláudio", "Custódio", "Daniel", "David", "Dinis", "Diogo", "Domingos",
    "Duarte", "Edgar", "Edmundo", "Eduardo", "Elias", "Emílio", "Ernesto", "Eugénio", "Fausto", "Feliciano",
    "Fernando", "Filipe", "Florindo", "Francisco", "Gaspar", "Gabriel", "Germano", "Gonçalo", "Guilherme",
    "Gustavo", "Heitor", "Hélder", "Henrique", "Hernâni", "Horácio", "Hortêncio", "Hugo", "Humberto",
    "Inácio", "Isidoro", "Ivo", "Jacinto", "Jaime", "Januário", "Jerónimo", "Joaquim", "Jorge", "José",
    "João", "Júlio", "Justino", "Lázaro", "Leonel", "Lino", "Lourenço", "Lucas", "Luciano", "Luís",
    "Manuel", "Marcelo", "Marco", "Mário", "Martim", "Mateus", "Matias", "Mauro", "Miguel", "Narciso",
    "Nélson", "Nicolau", "Norberto", "Nuno", "Octávio", "Olegário", "Orlando", "Óscar", "Osvaldo",
    "Patrício", "Paulo", "Pedro", "Quirino", "Rafael", "Ramiro", "Raul", "Renato", "Ricardo", "Roberto",
    "Rodolfo", "Rodrigo", "Rogério", "Romeu", "Rui", "Sandro", "Sebastião", "Sérgio", "Serafim",
    "Silvestre", "Silvino", "Simão", "Teófilo", "Tiago", "Tomás", "Tozé", "Urbano", "Valdemar", "Valter",
    "Vasco", "Vicente", "Vítor", "Virgílio", "Xavier", "Zeferino", "Paco", "Hassan", "Malcolm", "Hristo",
    "Ismael",
)
LAST = (
    "Abreu", "Afonso", "Aguiar", "Águedo", "Alegria", "Alentejano", "Almeida", "Alves", "Amaral", "Andrade",
    "Antunes", "Araújo", "Arcanjo", "Athaíde", "Azevedo", "Bagarrão", "Balela", "Baptista", "Barão",
    "Barata", "Barbosa", "Barros", "Belchior", "Bello", "Boronha", "Borges", "Botelho", "Braga", "Branco",
    "Brazão", "Brito", "Bucho", "Cabral", "Cajuda", "Caldeira", "Câmara", "Campos", "Cárabe", "Cardoso",
    "Carmo", "Carneiro", "Carvalho", "Cassiano", "Castelo", "Castro", "Chaves", "Coelho", "Conceição",
    "Cordeiro", "Correia", "Costa", "Coutinho", "Cruz", "Cunha", "Dâmaso", "Dias", "Domingues", "Duarte",
    "Emílio", "Estudante", "Esteves", "Faísca", "Faria", "Fernandes", "Ferreira", "Figueiredo", "Fonseca",
    "Formosinho", "Fortes", "Fragoso", "Freitas", "Gago", "Galvão", "Garcia", "Gaspar", "Gomes",
    "Gonçalves", "Gralho", "Guerreiro", "Guimarães", "Henriques", "Jesus", "Laranjeira", "Leal", "Leite",
    "Lemos", "Lima", "Lobo", "Lopes", "Louro", "Macedo", "Machado", "Magalhães", "Maldonado", "Marques",
    "Marreco", "Martins", "Matos", "Medeiros", "Melo", "Mendes", "Mendonça", "Miranda", "Monteiro",
    "Morais", "Moreira", "Mota", "Moura", "Nader", "Nascimento", "Neto", "Neves", "Nobre", "Nogueira",
    "Nunes", "Oliveira", "Olias", "Pacheco", "Paixão", "Palma", "Parente", "Patrício", "Pazos", "Peixoto",
    "Pereira", "Pessanha", "Pimenta", "Pinheiro", "Pinto", "Pires", "Portela", "Prudêncio", "Pulquério",
    "Quaresma", "Queirós", "Ramalho", "Ramos", "Rebeca", "Rebelo", "Reina", "Reis", "Ribeiro", "Rocha",
    "Rocheta", "Rodrigues", "Rosa", "Sá", "Salgado", "Sampaio", "Sancho", "Santos", "Saraiva", "Sequeira",
    "Serrano", "Silva", "Simões", "Soares", "Sousa", "Tavares", "Teixeira", "Teles", "Torres", "Trigo",
    "Uva", "Valente", "Vaqueiro", "Varela", "Vasconcelos", "Vaz", "Velho", "Viegas", "Vieira", "Vieirinha",
    "Vilar", "Vital", "Xavier", "Lino",
)
ONE_WORD = (
    "Vavá", "Mirobaldo", "Neca", "Fanã", "Hajry", "Edinho", "Vieirinha", "Juca", "Tito", "Quinito",
    "Chiquinho", "Zeca", "Toni", "Manecas", "Didi", "Pepe", "Duda", "Nené", "Tavinho", "Cavém", "Jaburu",
    "Lula", "Peyroteo", "Serafim", "Curcic", "Rajko", "Djukic", "Stefan", "Zoran", "Milan", "Dragan",
    "Ivan",
)
# fmt: on
# Words that begin and end the names of places and clubs; together they make thousands that do not exist.
# fmt: off
PLACE_BEGIN = (
    "Alb", "Alc", "Alf", "Almans", "Alv", "Amor", "Arm", "Barr", "Bel", "Borr", "Cal", "Camb", "Camp",
    "Car", "Cast", "Cor", "Cov", "Est", "Far", "Fer", "Font", "Gal", "Gond", "Gran", "Lag", "Lam", "Lour",
    "Lous", "Mac", "Maf", "Mar", "Mirand", "Mont", "Mour", "Naz", "Od", "Olh", "Oliv", "Our", "Ov", "Pard",
    "Pen", "Pinh", "Port", "Quart", "Quel", "Ram", "Red", "Rib", "Sal", "Sant", "Seix", "Serp", "Sert",
    "Sesimb", "Silv", "Sintr", "Tond", "Torr", "Tram", "Trof", "Val", "Varz", "Vid", "Vil", "Vim", "Vis",
    "Xab", "Zamb",
)
PLACE_END = (
    "ada", "ais", "al", "ança", "anca", "ana", "ante", "anto", "ão", "ar", "arda", "ares", "arim", "ata",
    "ate", "ato", "edo", "eira", "eiro", "ela", "elas", "elo", "ém", "enha", "ense", "ente", "era", "erde",
    "es", "eta", "ia", "ide", "igal", "im", "imão", "inha", "inho", "io", "ira", "iz", "oa", "oeira", "oes",
    "ola", "onde", "onte", "or", "ora", "osa", "osta", "ota", "oura", "ova", "ória", "ue", "uela", "ugal",
    "ura", "uso",
)
# fmt: on
PLACE_BEFORE = ("", "", "", "", "Vila ", "São ", "Santa ", "Monte ", "Ponte ", "Torre ", "Castelo ", "Rio ")
CLUB_SHAPES = (
    ("{ense}", "o"),
    ("{ense}", "o"),
    ("{ense}", "o"),
    ("{ense}", "a"),
    ("Atlético de {place}", "o"),
    ("Desportivo de {place}", "o"),
    ("Sporting de {place}", "o"),
    ("Vitória de {place}", "o"),
    ("Académica de {place}", "a"),
    ("União de {place}", "a"),
    ("Juventude de {place}", "a"),
    ("FC {place}", "o"),
    ("Estrela de {place}", "o"),
    ("Naval de {place}", "a"),
    ("Lusitano de {place}", "o"),
    ("{place}", "o"),
    ("Ginásio de {place}", "o"),
    ("Leões de {place}", "o"),
)
# fmt: off
REAL_OPPONENTS = (
    "Portimonense", "Olhanense", "Sporting", "Boavista", "Benfica", "Vitória de Guimarães",
    "Juventude de Évora", "FC Porto", "Estrela da Amadora", "Lusitano de Vila Real de Santo António",
    "Salgueiros", "Sporting de Braga", "Montijo", "Belenenses", "Oriental", "Atlético",
    "Desportivo de Beja", "Vitória de Setúbal", "Marítimo", "Estoril Praia", "Desportivo de Chaves",
    "Cova da Piedade", "Lusitano de Évora", "Beira-Mar", "Barreirense", "Gil Vicente", "Académica",
    "Rio Ave", "Grupo União Sport", "Leixões", "Penafiel", "Nacional", "Sacavenense", "Varzim", "Louletano",
    "Almada", "União da Madeira", "O Elvas", "GD Portalegrense", "CUF", "Aljustrelense", "Torreense",
    "Famalicão", "Sporting da Covilhã", "Sport Faro e Benfica", "Esperança de Lagos", "Oliveirense",
    "União de Leiria", "Sesimbra", "Seixal", "Paços de Ferreira", "Silves", "Casa Pia", "Campomaiorense",
    "Mafra", "Académico de Viseu", "Tirsense", "Moura", "Odivelas", "Feirense", "Alverca", "Santa Clara",
    "Sporting de Espinho", "Coruchense", "Sanjoanense", "Ovarense", "Caldas SC", "Vizela", "Arouca",
    "Leça FC", "Nazarenos", "Ginásio de Alcobaça", "Praiense", "Sertanense", "Länk Vilaverdense", "Alcains",
    "Merelinense", "Torre Moncorvo", "União de Coimbra", "Lyon", "Tondela", "Moreirense",
    "Desportivo das Aves", "Fafe", "Freamunde", "Imortal",
)
# fmt: on
NATIONS = (
    "Portugal",
    "Portugal",
    "Portugal",
    "Espanha",
    "Brasil",
    "Bulgária",
    "Inglaterra",
    "Marrocos",
    "Angola",
    "França",
    "Itália",
    "Argentina",
    "Hungria",
    "Alemanha",
    "Uruguai",
    "Suécia",
)
REGIONS = (
    "Algarve",
    "Alentejo",
    "Minho",
    "Ribatejo",
    "Douro",
    "Oeste",
    "Beira Alta",
    "Beira Baixa",
    "Estremadura",
    "Trás-os-Montes",
)
DISTRICTS = (
    "Algarve",
    "Porto",
    "Lisboa",
    "Braga",
    "Aveiro",
    "Setúbal",
    "Leiria",
    "Viseu",
    "Coimbra",
    "Évora",
)
ANIMALS = (
    "Leão",
    "Tigre",
    "Águia",
    "Lobo",
    "Falcão",
    "Dragão",
    "Touro",
    "Galo",
    "Raposa",
    "Pantera",
    "Urso",
    "Cavalo",
)
PLURALS = (
    "Leões",
    "Tigres",
    "Águias",
    "Lobos",
    "Falcões",
    "Dragões",
    "Touros",
    "Galos",
    "Guerreiros",
    "Corsários",
    "Marinheiros",
    "Conquistadores",
)
COLOURS = ("preto", "branco", "azul", "verde", "vermelho", "amarelo", "grená", "laranja", "roxo", "dourado")
GROUNDS = (
    "Estádio de",
    "Estádio Municipal de",
    "Campo de",
    "Parque de",
    "Estádio do Largo de",
    "Estádio da Quinta de",
)
EUROPEANS = (
    "Lyon",
    "Bolonha",
    "Estrasburgo",
    "Real Sociedad",
    "Torino",
    "Anderlecht",
    "Celtic",
    "Brondby",
    "Lokeren",
    "Dundee",
    "Twente",
    "Sturm Graz",
    "Ferencváros",
    "Vitesse",
    "Nantes",
    "Parma",
)
OFFICIAL = ("Sporting Clube", "Clube Desportivo", "Futebol Clube", "Sport Clube")
MOTHERS = ("Sporting Clube de Portugal", "Sport Lisboa e Benfica", "Futebol Clube do Porto")
SQUARES = ("Largo", "Campo", "Rossio", "Parque")
NICKNAMES = ("El Feo", "O Mestre", "O Professor", "El Loco", "O Capitão", "O Sábio", "O Velho")
